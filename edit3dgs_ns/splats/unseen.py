"""Gaussians that no training camera shows: found, put back onto their faces, and coloured like the mirrored side.

A single camera shows the back of a head never, and often one side hardly. Nothing trains the Gaussians there: they would stay as
they began, grey and half transparent. But a head at rest is symmetric, so the other side knows their colour (`rest_surface`).

How much a camera shows of a Gaussian comes from the rasterizer itself: the derivative of the sum of an image with respect to the
Gaussian's colour is the sum of its blending weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edit3dgs_ns.splats.rasterize import RasterizeMode, rasterize
from edit3dgs_ns.splats.rest_surface import RestSurface
from edit3dgs_ns.splats.world_splats import WorldSplats

LEAST_SHARE = 0.1
"""A Gaussian of which a camera shows less than this share is hidden from it."""
WELL_SEEN = 0.3
"""From this share on, what a camera shows of a Gaussian says its colour; below, it is mixed with what is in front."""
_OPACITY = 0.95
_FLAT, _WIDE = 0.1, 0.5
"""Scales of an unseen Gaussian along its face's normal and across, in sizes of the triangle."""
_FACE_NORMAL = 1
"""Axis of a triangle's frame."""


def blending_weights(
    splats: WorldSplats,
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    width: int,
    height: int,
    mode: RasterizeMode = "classic",
) -> tuple[Float[Tensor, " gaussians"], dict[str, Tensor]]:
    """How many pixels each Gaussian fills of a camera's image, and what the rasterizer says of it."""
    gaussians = splats.gaussians
    tensors = (gaussians.means, gaussians.quats, gaussians.scales, splats.opacities)
    means, quats, scales, opacities = (tensor.detach() for tensor in tensors)
    with torch.enable_grad():
        colors = means.new_zeros(len(means), 1, requires_grad=True)
        image, _, info = rasterize(
            means,
            quats,
            scales,
            opacities,
            colors,
            viewmat[None],
            K[None],
            width,
            height,
            rasterize_mode=mode,
        )
        (weights,) = torch.autograd.grad(image.sum(), colors)
    return weights[:, 0], info


@torch.no_grad()
def visible_share(
    weights: Float[Tensor, " gaussians"], info: Mapping[str, Tensor], opacities: Float[Tensor, " gaussians"]
) -> Float[Tensor, " gaussians"]:
    """Share of each Gaussian that a camera shows, in [0, 1]: 1 alone in the image, 0 behind others or outside.

    Args:
        weights: from `blending_weights`, as `info` is.
        info: of the rasterizer.
        opacities: of the Gaussians; with the area of its ellipse, what it would weigh alone.
    """
    a, b, c = info["conics"][0].unbind(-1)
    inverse_area = (a * c - b * b).clamp_min(1e-12).sqrt() / (2 * torch.pi)
    share = weights * inverse_area / opacities.clamp_min(1e-6)
    return torch.where(info["radii"][0] > 0, share, 0).clamp(0, 1)


def largest_share(shares: Iterable[Float[Tensor, " gaussians"]]) -> Float[Tensor, " gaussians"]:
    """Of every Gaussian, over all views; there is at least one."""
    best: Tensor | None = None
    for share in shares:
        best = share if best is None else torch.maximum(best, share)
    assert best is not None
    return best


def unseen_faces(
    share: Float[Tensor, " gaussians"], binding: Int[Tensor, " gaussians"], num_faces: int
) -> Bool[Tensor, " faces"]:
    """Faces with Gaussians of which none was ever shown: a hidden one below a visible surface belongs to that."""
    best = torch.full((num_faces,), -1.0, dtype=share.dtype, device=share.device)
    best.scatter_reduce_(0, binding.long(), share, reduce="amax")
    return (best >= 0) & (best < LEAST_SHARE)


@torch.no_grad()
def fill_unseen(
    params: Mapping[str, Tensor],
    binding: Int[Tensor, " gaussians"],
    share: Float[Tensor, " gaussians"],
    surface: RestSurface,
    held: Bool[Tensor, " gaussians"] | None = None,
) -> Bool[Tensor, " gaussians"]:
    """Lays the Gaussians of unseen faces flat onto these, and gives them the colour that `RestSurface.completed` finds.

    Args:
        params: of the Gaussians, by the names of BoundGaussians; changed in place.
        binding: the face of each Gaussian.
        share: how much of each Gaussian the training cameras show at most.
        surface: the head at rest.
        held: Gaussians that are not changed.

    Returns:
        Which Gaussians were changed.
    """
    num_faces = len(surface.faces)
    unseen = unseen_faces(share, binding, num_faces)[binding]
    known, colors = _face_colors(params, binding, share, num_faces)
    if held is not None:
        unseen = unseen & ~held
    if not bool(unseen.any()) or not bool(known.any()):
        return torch.zeros_like(unseen)
    rows = unseen.nonzero()[:, 0]
    params["means"][rows] = 0.0
    params["quats"][rows] = params["quats"].new_tensor([1.0, 0.0, 0.0, 0.0])
    sizes = params["scales"].new_full((3,), _WIDE)
    sizes[_FACE_NORMAL] = _FLAT
    params["scales"][rows] = torch.log(sizes)
    params["opacities"][rows] = float(np.log(_OPACITY / (1 - _OPACITY)))
    params["features_rest"][rows] = 0.0
    for name in ("expression_means", "expression_colors"):
        if name in params:
            params[name][rows] = 0.0
    completed = surface.completed(colors.cpu().double().numpy(), known.cpu().numpy())
    filled = params["features_dc"]
    filled[rows] = torch.from_numpy(completed).to(filled)[binding[rows]]
    return unseen


@torch.no_grad()
def keep_views(
    params: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    changed: Bool[Tensor, " gaussians"],
    weight: Float[Tensor, " gaussians"],
    difference: Callable[[], float],
    most: float,
) -> Bool[Tensor, " gaussians"]:
    """Undoes `fill_unseen` where it shines through, until what the cameras show is as it was.

    Args:
        params: after it; changed in place.
        before: the same before it.
        changed: what it returned.
        weight: how much each Gaussian adds to images, before and after: the largest are taken back first.
        difference: of the images with the Gaussians as they are now, to those with the Gaussians before.
        most: of the difference.

    Returns:
        Which Gaussians are still changed.
    """
    filled = {name: value.clone() for name, value in params.items()}
    rows = changed.nonzero()[:, 0]
    rows = rows[torch.argsort(weight[rows], stable=True)]

    def use(count: int) -> bool:
        for name, value in params.items():
            value[rows[:count]] = filled[name][rows[:count]]
            value[rows[count:]] = before[name][rows[count:]]
        return difference() <= most

    fits, fails = 0, len(rows) + 1
    while fails - fits > 1 + fits // 50:
        count = len(rows) if fails > len(rows) else (fits + fails) // 2
        fits, fails = (count, fails) if use(count) else (fits, count)
    use(fits)
    left = torch.zeros_like(changed)
    left[rows[:fits]] = True
    return left


def _face_colors(
    params: Mapping[str, Tensor],
    binding: Int[Tensor, " gaussians"],
    share: Float[Tensor, " gaussians"],
    num_faces: int,
) -> tuple[Bool[Tensor, " faces"], Float[Tensor, "faces 3"]]:
    """Faces of which a camera shows enough to know their colour, and the mean colour of their Gaussians."""
    opacity = torch.sigmoid(params["opacities"][:, 0])
    weight = torch.where(share >= WELL_SEEN, share * opacity, 0.0)
    total = weight.new_zeros(num_faces).index_add_(0, binding, weight)
    summed = weight.new_zeros(num_faces, 3).index_add_(0, binding, weight[:, None] * params["features_dc"])
    return total > 0, summed / total.clamp_min(1e-9)[:, None]
