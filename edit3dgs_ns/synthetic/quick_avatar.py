"""A small avatar of a synthetic person within seconds, for notebooks: coarser than what `ns-train` makes of a capture."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from edit3dgs_ns.capture.cameras import arc_cameras
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.splats.fitting import TargetView, fit_gaussians
from edit3dgs_ns.splats.initialisation import even_start
from edit3dgs_ns.splats.ply import BoundGaussians
from edit3dgs_ns.splats.rig import TrackedHead
from edit3dgs_ns.splats.rigged_gaussians import RiggedGaussians
from edit3dgs_ns.splats.views import viewmats_from_c2w
from edit3dgs_ns.synthetic.identity import Identity, random_identity
from edit3dgs_ns.synthetic.motion import SEQUENCES, act
from edit3dgs_ns.synthetic.scene import Frame, Scene
from edit3dgs_ns.synthetic.settings import EXTENT, TARGET

_RATES = {
    "means": 1e-2,
    "features_dc": 3e-2,
    "features_rest": 1e-3,
    "opacities": 3e-2,
    "scales": 2e-2,
    "quats": 5e-3,
}
_SPACING, _OPACITY = 0.0, 0.8


def quick_avatar(
    seed: int = 0,
    *,
    size: int = 128,
    cameras: int = 5,
    frames: int = 4,
    steps: int = 150,
    progress: Callable[[int, int], None] | None = None,
) -> RiggedGaussians:
    """An avatar of the embedded open head, fitted to ray-cast images of one synthetic person.

    Args:
        seed: which person.
        size: side of the images in pixels.
        cameras: 1 to 16, in front of the face.
        frames: timesteps of its motion, in which it makes faces.
        steps: of the fit, one image each.
        progress: is told the steps done and to do.
    """
    identity = random_identity(seed, OPEN_HEAD_PATH)
    acted = act(identity.head, SEQUENCES[0], frames, seed)
    avatar = _start(identity, _motion(identity, acted))
    views = []
    for timestep, frame in enumerate(acted):
        scene, pose = Scene(identity, frame), avatar.head.pose_at(timestep / max(frames - 1, 1))
        for camera in arc_cameras(cameras, size, size, np.array(TARGET), EXTENT):
            seen = scene.trace(camera.c2w, camera.K, size, size, samples_per_pixel=4)
            image = torch.from_numpy(seen.shade(identity.appearance).rgb)
            matrix = viewmats_from_c2w(torch.from_numpy(camera.c2w)[None])[0].float()
            views.append(TargetView(image, pose, matrix, torch.from_numpy(camera.K).float()))
    return fit_gaussians(avatar, views, steps, rates=_RATES, seed=seed, progress=progress)


def _motion(identity: Identity, acted: list[Frame]) -> FlameMotion:
    rows = {
        name: torch.from_numpy(np.stack([getattr(frame, name) for frame in acted])).float()
        for name in ("expr", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation")
    }
    offset = torch.from_numpy(np.asarray(identity.static_offset, np.float32))
    return FlameMotion(shape=torch.from_numpy(identity.shape).float(), static_offset=offset, **rows)


def _start(identity: Identity, motion: FlameMotion) -> RiggedGaussians:
    """Grey Gaussians all over the head."""
    head = TrackedHead(FlameModel.from_assets(identity.head.assets), motion)
    with torch.no_grad():
        binding, means, scales = even_start(
            head.canonical_vertices(), head.faces, head.rest_frames(), _SPACING
        )
    rows = partial(torch.zeros, len(binding))
    quats: Tensor = rows(4)
    quats[:, 0] = 1.0
    opacities = torch.logit(torch.full((len(binding), 1), _OPACITY))
    start = BoundGaussians(means, scales, quats, rows(3), rows(3, 3), opacities, binding)
    return RiggedGaussians.from_files(start, motion, identity.head.assets)
