"""`python -m edit3dgs_ns.training.compiling`: compiles what Numba compiles, once per machine, by one small training step.

The set-up runs it, so that the first training does not begin with a minute of waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from edit3dgs_ns.flame.motion import FlameMotion

SIZE = 32
"""Pixels of the image: what is compiled does not depend on it."""


def compile_kernels() -> None:
    """One image ray traced, and one training step on it: every kernel of a training on the CPU has run then."""
    from nerfstudio.cameras.cameras import Cameras
    from nerfstudio.engine.optimizers import Optimizers

    from edit3dgs_ns.synthetic.replay import Replay
    from edit3dgs_ns.synthetic.settings import CaptureSettings
    from edit3dgs_ns.training.optimizers import avatar_optimizers

    replay = Replay(CaptureSettings(width=SIZE, height=SIZE, cameras=1, frames=1, samples=1))
    sequence, (number, camera) = next(iter(replay.motion)), next(iter(replay.cameras.items()))
    image = torch.from_numpy(replay.render(sequence, 0, number).rgb)

    model = open_head_avatar()
    groups = model.get_param_groups()
    optimizers = Optimizers(
        {name: config for name, config in avatar_optimizers(1).items() if name in groups}, groups
    )
    c2w = torch.as_tensor(camera.c2w[:3], dtype=torch.float32)
    (fx, _, cx), (_, fy, cy), _ = camera.K.tolist()
    view = Cameras(c2w[None], fx, fy, cx, cy, SIZE, SIZE, times=torch.zeros(1, 1))
    model.step_cb(optimizers, 0)
    outputs = model.get_outputs(view)
    batch = {"image": image}
    sum(model.get_loss_dict(outputs, batch, model.get_metrics_dict(outputs, batch)).values()).backward()
    optimizers.optimizer_step_all()
    model.step_post_backward(0)


def open_head_avatar(frames: int = 1, pose: Callable[[FlameMotion], None] = lambda motion: None) -> Any:
    """An untrained avatar of the embedded head, in training.

    Args:
        frames: timesteps of its motion.
        pose: moves the head, which is at rest, by changing its motion.
    """
    from nerfstudio.data.scene_box import SceneBox

    from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
    from edit3dgs_ns.flame.loading import load_assets
    from edit3dgs_ns.flame.model import FlameModel
    from edit3dgs_ns.flame.motion import FlameMotion
    from edit3dgs_ns.training.model import RiggedSplatfactoModelConfig

    head = FlameModel.from_assets(load_assets(OPEN_HEAD_PATH))
    motion = FlameMotion.zeros(frames, head.num_shape, head.num_expr)
    pose(motion)
    model = RiggedSplatfactoModelConfig().setup(
        scene_box=SceneBox(torch.tensor([[-1.0, -1, -1], [1, 1, 1]])),
        num_train_data=1,
        metadata={"flame_motion": motion, "head": "open-head"},
    )
    return model.train()


if __name__ == "__main__":
    print("Compiling the CPU rasterizer (once on this machine; one to two minutes) ...", flush=True)
    compile_kernels()
