"""`edit3dgs export --max-gaussians`: keeps the Gaussians that a run's views show most of, and measures what that costs.

A Gaussian's importance is the sum of its blending weights over training views (`splats.unseen.blending_weights`): what it adds
to images, whatever hides it. The loss is measured in other views, where the capture has more than one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from edit3dgs_ns.runs.trained_run import TrainedRun, moved_camera
from edit3dgs_ns.splats.unseen import blending_weights
from edit3dgs_ns.splats.views import viewmats_from_c2w
from edit3dgs_ns.splats.world_splats import WorldSplats

_VIEWS = 24
"""Every other one chooses the Gaussians, the ones between measure the loss."""
_LONGEST_SIDE = 512
"""Pixels of these views at most."""
_UNSEEN = 1e-6
"""Pixels that the opacity counts as: among Gaussians that no view shows, opaque ones are kept."""


@dataclass(frozen=True)
class Thinned:
    """What was kept."""

    rows: Int[Tensor, " kept"]
    """Numbers of the Gaussians that were kept, ascending."""
    count: int
    """Gaussians before."""
    psnr: float
    """Of views after, with views before as the truth, over all pixels; infinite where nothing changed."""
    views: int
    """That it was measured in."""

    def __str__(self) -> str:
        """For the user."""
        kept = len(self.rows)
        if kept == self.count:
            return f"All {kept} Gaussians kept: the avatar has no more than --max-gaussians."
        agreement = "no difference" if math.isinf(self.psnr) else f"{self.psnr:.1f} dB"
        return (
            f"Kept the {kept} most important of {self.count} Gaussians: {agreement} against the whole avatar, "
            f"in {self.views} view{'s' if self.views > 1 else ''}."
        )


@torch.no_grad()
def thin(run: TrainedRun, most: int, time: float | None = None) -> Thinned:
    """Keeps the most important Gaussians of a run that is loaded; the files of the run stay as they are.

    Args:
        run: its model loses the others.
        most: Gaussians at most.
        time: the normalised time at which the views are rendered; None: each at its own.
    """
    model = run.pipeline.model
    count = len(model.binding)
    if most >= count:
        return Thinned(torch.arange(count), count, math.inf, 0)
    views = _views(run, time)
    judges = views[1::2] or views
    importance = _UNSEEN * torch.sigmoid(model.gauss_params["opacities"][:, 0])
    for camera in views[::2]:
        importance += _weights(model, camera)
    whole = [_drawn(model, camera) for camera in judges]
    rows = importance.topk(most).indices.sort().values
    _select(model, rows)
    errors = [
        float((_drawn(model, camera) - image).square().mean())
        for camera, image in zip(judges, whole, strict=True)
    ]
    error = sum(errors) / len(errors)
    return Thinned(rows.cpu(), count, -10 * math.log10(error) if error else math.inf, len(judges))


def _views(run: TrainedRun, time: float | None) -> list[Cameras]:
    """Training views, evenly over the capture's list."""
    cameras = run.split("train").cameras
    chosen = torch.linspace(0, len(cameras) - 1, min(_VIEWS, len(cameras))).round().long().tolist()
    views = []
    for index in chosen:
        camera = cameras[index : index + 1]
        longest = max(int(camera.width[0]), int(camera.height[0]))
        views.append(
            moved_camera(camera, time=time, scale=min(1.0, _LONGEST_SIDE / longest)).to(run.pipeline.device)
        )
    return views


def _weights(model: Any, camera: Cameras) -> Float[Tensor, " gaussians"]:
    gaussians, colors = model.shown_at(_time(camera))
    splats = WorldSplats(gaussians, torch.sigmoid(model.gauss_params["opacities"][:, 0]), colors)
    weights, _ = blending_weights(
        splats,
        viewmats_from_c2w(camera.camera_to_worlds)[0],
        camera.get_intrinsics_matrices()[0],
        int(camera.width[0]),
        int(camera.height[0]),
        model.config.rasterize_mode,
    )
    return weights


def _drawn(model: Any, camera: Cameras) -> Float[Tensor, "height width 3"]:
    return model.draw_shown(camera, *model.shown_at(_time(camera)))[0]


def _time(camera: Cameras) -> float:
    assert camera.times is not None
    return float(camera.times[0])


def _select(model: Any, rows: Int[Tensor, " kept"]) -> None:
    for name, value in list(model.gauss_params.items()):
        model.gauss_params[name] = torch.nn.Parameter(value[rows].clone(), requires_grad=value.requires_grad)
    model.binding = model.binding[rows]
