"""Fits the Gaussians of an avatar to images, without densification: for one batch of edited views, in a notebook.

`ns-train` has the whole training; its rates while edits are fitted are the ones here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.splats import losses
from edit3dgs_ns.splats.rasterize import RasterizeMode, rasterize
from edit3dgs_ns.splats.rigged_gaussians import RiggedGaussians
from edit3dgs_ns.splats.world_splats import WorldSplats

GAUSSIAN_EDIT_RATES: Mapping[str, float] = {
    "means": 2e-3,
    "features_dc": 1e-2,
    "features_rest": 5e-4,
    "opacities": 1e-2,
    "scales": 4e-3,
    "quats": 1e-3,
    "expression_means": 2e-4,
    "expression_colors": 2e-4,
}
"""Adam's learning rates while edits are fitted: an avatar is there, so positions and sizes move little, colours freely."""
ONE_BATCH_RATES: Mapping[str, float] = {**GAUSSIAN_EDIT_RATES, "features_dc": 3e-2}
"""For a single batch: its few steps have to carry the colours as far as the twenty rounds of a run do."""
_SSIM_WEIGHT, _POSITION_WEIGHT, _POSITION_FREE, _SCALE_FREE = 0.2, 0.01, 1.0, 0.6
"""As in GaussianAvatars, see `losses`."""
_FINAL_SHARE = 0.1
"""Of a learning rate, at the last step."""


@dataclass(frozen=True)
class TargetView:
    """An image that an avatar is to look like, and from where."""

    image: Float[Tensor, "height width 3"]
    """On white, in [0, 1]."""
    pose: FlamePose
    """One frame."""
    viewmat: Float[Tensor, "4 4"]
    """camera_from_world, OpenCV axes."""
    K: Float[Tensor, "3 3"]
    """Intrinsics in pixels."""


def fit_gaussians(
    avatar: RiggedGaussians,
    views: Sequence[TargetView],
    steps: int,
    *,
    rates: Mapping[str, float] = ONE_BATCH_RATES,
    rasterize_mode: RasterizeMode = "classic",
    scene: WorldSplats | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> RiggedGaussians:
    """The avatar with its Gaussians fitted to images; number of Gaussians, motion and light stay as they are.

    Args:
        avatar: is not changed.
        views: one is drawn at each step, all before any comes again.
        steps: of Adam; 0 gives the avatar back.
        rates: learning rates by the parameters' names; they fall to a tenth at the last step.
        rasterize_mode: as the avatar is drawn.
        scene: drawn with the avatar.
        seed: of the order of the views.
        progress: is told the steps done and to do.
    """
    params = {name: value.detach().clone().requires_grad_(True) for name, value in avatar.params.items()}
    fitted = replace(avatar, params=params)
    optimizer = torch.optim.Adam(
        [{"params": [value], "lr": rates[name]} for name, value in params.items()], eps=1e-15
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _FINAL_SHARE ** (min(step, steps) / max(steps, 1))
    )
    with torch.no_grad():
        frames = [avatar.head.frames_of(view.pose) for view in views]
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    for step in range(steps):
        order = order or torch.randperm(len(views), generator=generator).tolist()
        number = order.pop()
        splats = fitted.splats(views[number].pose, frames[number]).joined(scene)
        loss = _loss(params, splats, views[number], rasterize_mode)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    return replace(avatar, params={name: value.detach() for name, value in params.items()})


def _loss(
    params: Mapping[str, Tensor], splats: WorldSplats, view: TargetView, mode: RasterizeMode
) -> Float[Tensor, ""]:
    height, width = view.image.shape[:2]
    image, _, info = rasterize(
        *splats.tensors,
        view.viewmat[None],
        view.K[None],
        width,
        height,
        sh_degree=splats.sh_degree,
        backgrounds=view.image.new_ones(1, 3),
        rasterize_mode=mode,
    )
    visible = (info["radii"] > 0).any(dim=0)[: len(params["means"])]
    distance, size = losses.binding_losses(
        params["means"], params["scales"], visible, _POSITION_FREE, _SCALE_FREE
    )
    return losses.image_loss(image, view.image[None], _SSIM_WEIGHT) + _POSITION_WEIGHT * distance + size
