"""The visible surface of carved voxels: what each view sees of it, and voxels whose colours its views do not agree on carved away.

Silhouettes alone leave a bulge where no view looks along the surface. There the views see different points of the true surface
behind one voxel, and so different colours (space carving: Kutulakos and Seitz, "A theory of shape by space carving", 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from edit3dgs_ns.edit_training.growth.carving import Voxels
from edit3dgs_ns.edit_training.growth.seen import SeenView, eroded

_THICKNESS = 1.5
"""A voxel is seen that lies at most this many voxels behind the nearest one of its pixel."""


@dataclass(frozen=True)
class Shown:
    """What all views show of some voxels.

    Attributes:
        views: how many views see each.
        clear: how many see it clear of their images' outline, where the background mixes in.
        color: mean of what these show; 0 where there are none.
        spread: standard deviation of that, of the worst channel.
    """

    views: Float[Tensor, " voxels"]
    clear: Float[Tensor, " voxels"]
    color: Float[Tensor, "voxels 3"]
    spread: Float[Tensor, " voxels"]


@torch.no_grad()
def shown(
    voxels: Voxels, views: list[SeenView], posed: list[Float[Tensor, "voxels 3"]] | None = None
) -> Shown:
    """What the edited views show of each voxel that they see."""
    count, clear = (voxels.points.new_zeros(len(voxels)) for _ in range(2))
    total, squares = (voxels.points.new_zeros(len(voxels), 3) for _ in range(2))
    for number, view in enumerate(views):
        points = voxels.posed(view) if posed is None else posed[number]
        seen, pixel = visible(points, voxels.size, view)
        sure = seen & eroded(view.shows, 1).reshape(-1)[pixel]
        color = view.edited.reshape(-1, 3)[pixel] * sure[:, None]
        count += seen
        clear += sure
        total += color
        squares += color.square()
    divisor = clear.clamp_min(1)[:, None]
    mean = total / divisor
    return Shown(count, clear, mean, (squares / divisor - mean.square()).clamp_min(0).sqrt().amax(dim=1))


@torch.no_grad()
def visible(
    points: Float[Tensor, "voxels 3"], size: float, view: SeenView
) -> tuple[Bool[Tensor, " voxels"], Float[Tensor, " voxels"]]:
    """Which voxels a view sees, before others and before the old surface, and the pixels that they are in."""
    height, width = view.alpha.shape
    pixel, depth, inside = view.project(points)
    nearest = torch.full((height * width,), torch.inf, dtype=points.dtype, device=points.device)
    nearest.scatter_reduce_(0, pixel[inside], depth[inside], reduce="amin")
    if bool(inside.any()):
        # A voxel hides all pixels that it covers, not only that of its middle.
        radius = int(0.5 * size * float(view.K[0, 0]) / float(depth[inside].median()) + 0.5)
        if radius:
            near = -F.max_pool2d(-nearest.reshape(1, 1, height, width), 2 * radius + 1, 1, radius)
            nearest = near.reshape(-1)
    limit = torch.minimum(nearest + _THICKNESS * size, view.depth.reshape(-1))
    return inside & (depth <= limit[pixel]), pixel


@torch.no_grad()
def agreed(
    voxels: Voxels, views: list[SeenView], most: float, iterations: int = 24
) -> Bool[Tensor, " voxels"]:
    """Voxels that are left when those whose colours spread too far between their views are taken away, from the outside in.

    Args:
        voxels: carved by silhouettes.
        views: the edited views.
        most: standard deviation that is let through.
        iterations: layers that are taken away at most.
    """
    left = torch.ones(len(voxels), dtype=torch.bool, device=voxels.points.device)
    posed = [voxels.posed(view) for view in views]
    for _ in range(iterations):
        rows = left.nonzero()[:, 0]
        found = shown(voxels[left], views, [points[rows] for points in posed])
        wrong = (found.clear >= 3) & (found.spread > most)
        if not bool(wrong.any()):
            break
        left[rows[wrong]] = False
    return left
