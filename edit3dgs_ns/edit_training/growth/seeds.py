"""New Gaussians: on the visible surface of what the views show to be new, and on skin that they lay bare."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from edit3dgs_ns.edit_training.growth.carving import Voxels, carved, divided, voxels_around
from edit3dgs_ns.edit_training.growth.seen import SHOWS, SeenView, distance_from_white, unexplained
from edit3dgs_ns.edit_training.growth.surface import agreed, shown
from edit3dgs_ns.splats.carriers import Carriers
from edit3dgs_ns.splats.spherical_harmonics import plain_colors

_COARSE, _FINE = 0.008, 0.004
"""Edges of voxels, metres."""
_SPREAD = 0.10
"""Standard deviation of colours that views of one surface point may have: light and sampling, no other surface."""
_EVIDENCE = 0.05
"""Share of a connected new part that at least two views show where recolouring the old surface cannot explain it."""
_LEAST = 12
"""Voxels below which a part is noise."""
_OPACITY = 0.9
_COVER = 0.6
"""Standard deviation of a seed in voxels: neighbours leave no holes."""
_FLAT, _WIDE = 0.1, 0.5
"""Scales of a Gaussian on bare skin along its face's normal and across, in sizes of the triangle."""


@dataclass(frozen=True)
class Seeds:
    """Gaussians to be.

    Attributes:
        binding: the face of each.
        means: triangle-local.
        scales: triangle-local, logarithms.
        colors: in [0, 1].
        opacity: in (0, 1), of all.
    """

    binding: Int[Tensor, " seeds"]
    means: Float[Tensor, "seeds 3"]
    scales: Float[Tensor, "seeds 3"]
    colors: Float[Tensor, "seeds 3"]
    opacity: float

    def __len__(self) -> int:
        return len(self.binding)

    def rows(self, like: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rows of all parameters of an avatar's Gaussians; what the seeds do not say is 0."""
        count = len(self)
        quats = self.means.new_zeros(count, 4)
        quats[:, 0] = 1.0
        known = {
            "means": self.means,
            "scales": self.scales,
            "quats": quats,
            "features_dc": plain_colors(self.colors)[:, 0],
            "opacities": self.means.new_full((count, 1), math.log(self.opacity / (1 - self.opacity))),
        }
        return {
            name: known[name] if name in known else value.new_zeros(count, *value.shape[1:])
            for name, value in like.items()
        }


@torch.no_grad()
def new_parts(
    views: list[SeenView],
    carriers: Carriers,
    surface: Float[Tensor, "points 3"],
    allowed: Bool[Tensor, " faces"] | None = None,
) -> Voxels | None:
    """Voxels of what the views show to be new around the old surface; None where there is no such thing.

    Args:
        views: the edited views, of any timesteps.
        carriers: choose what carries each voxel.
        surface: the old surface at rest, metres.
        allowed: faces that may carry any; None for all.
    """
    evidence = unexplained(views, _FINE)
    if sum(bool(proof.any()) for proof in evidence) < 2 or not len(surface):
        return None
    coarse = voxels_around(surface, carriers, _COARSE, allowed=allowed)
    coarse = coarse[carved(coarse, views, evidence, loose=True)[0]]
    if not len(coarse):
        return None
    fine = divided(coarse, carriers, allowed)
    kept, seen = carved(fine, views, evidence)
    parts = _proven(fine[kept], seen[kept] >= 2)
    if not len(parts):
        return None
    parts = parts[agreed(parts, views, _SPREAD)]
    return parts if len(parts) else None


@torch.no_grad()
def seeds_on(
    parts: Voxels,
    views: list[SeenView],
    carriers: Carriers,
    present: Float[Tensor, "points 3"],
    most: int,
) -> Seeds | None:
    """Seeds on the visible surface of new parts, none where the avatar has Gaussians already.

    Args:
        parts: of `new_parts`.
        views: the edited views.
        carriers: that chose the voxels' faces.
        present: places of the avatar's opaque Gaussians at rest, metres.
        most: of the seeds; where there would be more, fewer and larger ones cover the same surface.
    """
    found = shown(parts, views)
    seen, clear = found.views > 0, found.clear > 0
    if not bool(clear.any()):
        return None
    # What is seen at the outline alone has the colour of the nearest that is not.
    _, nearest = cKDTree(parts.points[clear].cpu().numpy()).query(parts.points.cpu().numpy())
    colors = torch.where(
        clear[:, None], found.color, found.color[clear][torch.from_numpy(nearest).to(parts.faces)]
    )
    if len(present):
        distance, _ = cKDTree(present.cpu().numpy()).query(parts.points.cpu().numpy())
        seen &= torch.from_numpy(distance).to(parts.points) > 0.75 * parts.size
    rows = seen.nonzero()[:, 0]
    if not len(rows) or most < 1:
        return None
    thinned = rows[torch.linspace(0, len(rows) - 1, min(most, len(rows)), device=rows.device).round().long()]
    size = _COVER * parts.size * math.sqrt(len(rows) / len(thinned))
    binding = parts.faces[thinned]
    scales = torch.log(size / carriers.rest.size[binding])[:, None].expand(-1, 3).contiguous()
    return Seeds(binding, parts.local[thinned], scales, colors[thinned], _OPACITY)


@torch.no_grad()
def bare_skin(
    faces: Int[Tensor, " bare"], views: list[SeenView], normals: list[Float[Tensor, "faces 3"]]
) -> Seeds | None:
    """Seeds flat on faces of which something was removed, in the colour that the edited views show there.

    Args:
        faces: of the head.
        views: the edited views.
        normals: outward, of all faces of the head in each view.
    """
    total = views[0].edited.new_zeros(len(faces), 3)
    weight = views[0].edited.new_zeros(len(faces))
    for view, normal in zip(views, normals, strict=True):
        height, width = view.alpha.shape
        pixel, depth, inside = view.project(view.frames.centre)
        nearest = torch.full((height * width,), torch.inf, dtype=depth.dtype, device=depth.device)
        nearest.scatter_reduce_(0, pixel[inside], depth[inside], reduce="amin")
        eye = -view.viewmat[:3, :3].T @ view.viewmat[:3, 3]
        facing = torch.nn.functional.cosine_similarity(eye - view.frames.centre[faces], normal[faces], dim=1)
        color = view.edited.reshape(-1, 3)[pixel[faces]]
        clear = depth[faces] <= nearest[pixel[faces]] + 0.01
        seen = inside[faces] & clear & (distance_from_white(color) > SHOWS)
        share = torch.where(seen, facing.clamp_min(0), 0.0)
        total += share[:, None] * color
        weight += share
    found = weight > 0.3
    if not bool(found.any()):
        return None
    chosen = faces[found]
    scales = total.new_tensor([_WIDE, _FLAT, _WIDE]).log().expand(len(chosen), 3).contiguous()
    return Seeds(
        chosen, total.new_zeros(len(chosen), 3), scales, total[found] / weight[found][:, None], _OPACITY
    )


def _proven(voxels: Voxels, proof: Bool[Tensor, " voxels"]) -> Voxels:
    """The connected parts that are proven to be new in enough of their voxels."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(voxels):
        return voxels
    near = voxels.neighbours().cpu()
    here, side = (near >= 0).nonzero(as_tuple=True)
    there = near[here, side]
    ones = torch.ones(len(here), dtype=torch.bool).numpy()
    graph = coo_matrix((ones, (here.numpy(), there.numpy())), shape=(len(voxels), len(voxels)))
    count, labels = connected_components(graph, directed=False)
    label = torch.from_numpy(labels).long()
    size = torch.bincount(label, minlength=count)
    proven = torch.bincount(label[proof.cpu()], minlength=count)
    good = (size >= _LEAST) & (proven >= _EVIDENCE * size)
    return voxels[good[label].to(voxels.points.device)]
