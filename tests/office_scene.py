"""A scene of `ns-train splatfacto` for an avatar to stand in, and what a camera must see of both.

The scene is a run of Nerfstudio's own method on one timestep of the tiny capture, trained for three steps; as gsplat needs a GPU,
the CPU rasterizer stands in for it. The fixtures are in tests/conftest.py.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.splats.rasterize import rasterize
from edit3dgs_ns.splats.views import viewmats_from_c2w
from tests.edit_runs import train

SCALE, SHIFT = 0.4, (0.05, 0.0, -0.1)
"""Where it stands around the head."""
ROUNDED = 4e-3
"""Rounding of float32 can carry a Gaussian over the rasterizer's limit of 1/255 in a pixel or two."""


@contextmanager
def without_a_gpu() -> Iterator[None]:
    """Splatfacto on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nerfstudio.models.splatfacto.rasterization", _stand_in_for_gsplat)
        patch.setattr("nerfstudio.models.splatfacto.get_viewmat", viewmats_from_c2w)  # theirs is compiled
        patch.setattr(torch.Tensor, "cuda", lambda self: self)
        yield


def _stand_in_for_gsplat(*args: Any, packed: bool, sparse_grad: bool, **options: Any) -> Any:
    return rasterize(**options)


def train_office(data: Path, folder: Path, torch_home: Path) -> tuple[Path, Any]:
    """config.yml of a scene, and Nerfstudio's model of it, with colours that depend on the direction.

    Args:
        data: a capture.
        folder: where the run goes.
        torch_home: with the weights that Nerfstudio would download.
    """
    from nerfstudio.configs.method_configs import method_configs

    from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig

    config: Any = copy.deepcopy(method_configs["splatfacto"])
    config.pipeline.datamanager.dataparser = NersembleDataParserConfig(data=data, timestep=1)
    config.pipeline.model.random_init, config.pipeline.model.num_random = True, 200
    config.pipeline.model.random_scale, config.pipeline.model.num_downscales = 1.0, 0
    config.output_dir, config.experiment_name = folder, "office"
    config.machine.device_type, config.vis, config.max_num_iterations = "cpu", "tensorboard", 3
    with without_a_gpu(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(torch_home))
        trainer = train(config)
    model = trainer.pipeline.model.eval()
    with torch.no_grad():
        model.gauss_params["features_rest"].normal_(0, 0.4, generator=torch.Generator().manual_seed(1))
        model.gauss_params["opacities"] += 2
        model.gauss_params["scales"] -= 1.5  # single spots, before, beside and behind the head
    model.step = 3000  # all degrees are in use
    trainer.save_checkpoint(3000)
    return trainer.base_dir / "config.yml", model


def front_at(run: TrainedRun, time: float) -> Cameras:
    camera = run.split("val").cameras[0:1]
    camera.times = torch.tensor([[time]])
    return camera


@torch.no_grad()
def expected_picture(avatar: Any, scene: Any, camera: Cameras) -> torch.Tensor:
    """All Gaussians of both in one list, of Nerfstudio's model as it has them."""
    gaussians, colors = avatar.shown_at(float(camera.times))
    filled = torch.cat([colors, torch.zeros(len(colors), 16 - colors.shape[1], 3)], dim=1)
    theirs = torch.cat([scene.features_dc[:, None], scene.features_rest], dim=1)
    image, _, _ = rasterize(
        torch.cat([gaussians.means, SCALE * scene.means + torch.tensor(SHIFT)]),
        torch.cat([gaussians.quats, scene.quats]),
        torch.cat([gaussians.scales, SCALE * scene.scales.exp()]),
        torch.cat([torch.sigmoid(avatar.gauss_params["opacities"]), torch.sigmoid(scene.opacities)])[:, 0],
        torch.cat([filled, theirs]),
        viewmats_from_c2w(camera.camera_to_worlds), camera.get_intrinsics_matrices(), 48, 48,
        sh_degree=3, backgrounds=torch.ones(1, 3),
    )  # fmt: skip
    return image[0].clamp(0, 1)
