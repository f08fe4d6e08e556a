"""The space that an edit has filled, carved from its views: voxels around the head at rest, each carried by a face.

A voxel before the old surface is kept where every view that would see it shows something new there. Views of all timesteps
carve the same voxels: each moves with the face that carries it (`splats/carriers.py`), so that a turning head shows itself from
more sides than there are cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from edit3dgs_ns.edit_training.growth.seen import SeenView, dilated
from edit3dgs_ns.splats.carriers import Carriers, local_points, world_points

REACH = 0.08
"""How far from the old surface anything may grow, metres."""
_REFUSALS = 0.06
"""Share of the views that may refuse a voxel that all others keep: edits of neural editors never agree in every pixel."""
_LEAST_VIEWS = 3
_FARTHEST = 0.3
"""Metres from the box around the head beyond which Gaussians of an avatar are stray, and nothing grows."""


@dataclass(frozen=True)
class Voxels:
    """Some voxels of a grid over the head at rest.

    Attributes:
        places: integer coordinates.
        points: their middles at rest, metres.
        faces: that carry them.
        local: their middles in the frames of these faces.
        size: edge in metres.
    """

    places: Int[Tensor, "voxels 3"]
    points: Float[Tensor, "voxels 3"]
    faces: Int[Tensor, " voxels"]
    local: Float[Tensor, "voxels 3"]
    size: float

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, chosen: Bool[Tensor, " voxels"]) -> Voxels:
        return Voxels(
            self.places[chosen], self.points[chosen], self.faces[chosen], self.local[chosen], self.size
        )

    def posed(self, view: SeenView) -> Float[Tensor, "voxels 3"]:
        """Their middles in a view's pose, metres."""
        return world_points(self.local, self.faces, view.frames)

    def codes(self, places: Int[Tensor, "n 3"] | None = None) -> Int[Tensor, " n"]:
        """One number for each place."""
        x, y, z = ((self.places if places is None else places) + 1024).unbind(dim=1)
        return (x * 4096 + y) * 4096 + z

    def neighbours(self) -> Int[Tensor, "voxels 6"]:
        """Position of the voxels on the six sides of each; -1 where there is none."""
        codes = self.codes()
        ordered, order = codes.sort()
        result = []
        for axis in range(3):
            for step in (-1, 1):
                moved = self.places.clone()
                moved[:, axis] += step
                wanted = self.codes(moved)
                at = torch.searchsorted(ordered, wanted).clamp(max=len(ordered) - 1)
                result.append(torch.where(ordered[at] == wanted, order[at], -1))
        return torch.stack(result, dim=1)


@torch.no_grad()
def voxels_around(
    surface: Float[Tensor, "points 3"],
    carriers: Carriers,
    size: float,
    reach: float = REACH,
    allowed: Bool[Tensor, " faces"] | None = None,
) -> Voxels:
    """All voxels within a reach of the old surface.

    Args:
        surface: points of the old surface at rest (means of its Gaussians), metres.
        carriers: choose what carries each voxel.
        size: edge in metres.
        reach: metres.
        allowed: faces that may carry any; None for all.
    """
    head = carriers.rest.centre
    low = torch.maximum(surface.amin(dim=0), head.amin(dim=0) - _FARTHEST)
    high = torch.minimum(surface.amax(dim=0), head.amax(dim=0) + _FARTHEST)
    low = ((low - reach) / size).floor().long()
    high = ((high + reach) / size).ceil().long()
    axes = [torch.arange(int(a), int(b) + 1, device=surface.device) for a, b in zip(low, high, strict=True)]
    places = torch.cartesian_prod(*axes)
    points = (places.to(surface.dtype) + 0.5) * size
    distance, _ = cKDTree(surface.cpu().numpy()).query(points.cpu().numpy(), distance_upper_bound=reach)
    near = torch.from_numpy(distance).to(surface) < reach
    return bound_voxels(places[near], carriers, size, allowed)


def bound_voxels(
    places: Int[Tensor, "voxels 3"],
    carriers: Carriers,
    size: float,
    allowed: Bool[Tensor, " faces"] | None = None,
) -> Voxels:
    """Voxels at these places with the faces that carry them."""
    points = (places.to(carriers.rest.size.dtype) + 0.5) * size
    faces = carriers.choose(points, allowed)
    return Voxels(places, points, faces, local_points(points, faces, carriers.rest), size)


@torch.no_grad()
def divided(voxels: Voxels, carriers: Carriers, allowed: Bool[Tensor, " faces"] | None = None) -> Voxels:
    """Each voxel as its eight parts."""
    corners = torch.cartesian_prod(*[torch.arange(2, device=voxels.places.device)] * 3)
    places = (voxels.places[:, None] * 2 + corners).reshape(-1, 3)
    return bound_voxels(places, carriers, voxels.size / 2, allowed)


@torch.no_grad()
def carved(
    voxels: Voxels, views: list[SeenView], evidence: list[Bool[Tensor, "height width"]], loose: bool = False
) -> tuple[Bool[Tensor, " voxels"], Int[Tensor, " voxels"]]:
    """Which voxels the views keep, and how many of them show there what the old surface cannot explain.

    Args:
        voxels: to be carved.
        views: the edited views.
        evidence: of each view, from `unexplained`.
        loose: for voxels that are larger than a pixel: kept where the views keep any of it.
    """
    kept = torch.zeros(len(voxels), device=voxels.points.device)
    refused, shown = torch.zeros_like(kept), torch.zeros_like(kept)
    for view, proof in zip(views, evidence, strict=True):
        points = voxels.posed(view)
        pixel, depth, inside = view.project(points)
        focal = float(view.K[0, 0])
        spread = (
            int(voxels.size * focal / float(depth[inside].median()) / 2 + 0.5) if bool(inside.any()) else 0
        )
        new = dilated(view.changed, 1 + (spread if loose else 0)).reshape(-1)[pixel]
        before = inside & (depth < view.depth.reshape(-1)[pixel] - (0.0 if loose else 0.5 * voxels.size))
        kept += before & new
        refused += before & ~new
        shown += before & dilated(proof, spread if loose else 0).reshape(-1)[pixel]
    seen = kept + refused
    keeps = (kept >= _LEAST_VIEWS) & (refused <= _REFUSALS * seen)
    return keeps, shown.long()
