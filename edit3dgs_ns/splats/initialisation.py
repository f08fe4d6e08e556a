"""Initial Gaussians of a new avatar: one on every face, or a number in proportion to its area."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edit3dgs_ns.splats.binding import TriangleFrames

_MOST = 64
"""No face starts with more Gaussians than this."""
_R2 = (0.7548776662466927, 0.5698402909980532)
"""Steps of the R2 sequence, whose points lie evenly on a square (Roberts, 2018): 1/p and 1/p^2, p^3 = p + 1."""


def even_start(
    vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    frames: TriangleFrames,
    spacing: float,
) -> tuple[Int[Tensor, " gaussians"], Float[Tensor, "gaussians 3"], Float[Tensor, "gaussians 3"]]:
    """Gaussians at about equal distances: one on every face, more on faces larger than `spacing`.

    Args:
        vertices: the head at rest, metres.
        faces: corners of every face.
        frames: the triangle frames of `vertices`.
        spacing: distance of neighbouring Gaussians, metres; 0: one on every face, at its centre.

    Returns:
        Binding, triangle-local means and triangle-local log scales.
    """
    counts = torch.ones(len(faces), dtype=torch.long, device=vertices.device)
    if spacing > 0:
        counts = (frames.size / spacing).square().round().long().clamp(1, _MOST)
    binding = torch.repeat_interleave(torch.arange(len(faces), device=vertices.device), counts)
    first = torch.cumsum(counts, 0) - counts
    rank = torch.arange(len(binding), device=vertices.device) - first[binding]
    alone = (counts == 1)[binding]
    weights = torch.where(alone[:, None], vertices.new_full((3,), 1 / 3), _even_weights(rank, vertices.dtype))
    points = (vertices[faces[binding]] * weights[..., None]).sum(dim=1)
    offset = (points - frames.centre[binding])[:, None] @ frames.rotation[binding]
    means = torch.where(alone[:, None], vertices.new_zeros(3), offset[:, 0] / frames.size[binding][:, None])
    scales = -0.5 * torch.log(counts[binding].to(vertices.dtype))[:, None].expand(-1, 3)
    return binding, means, scales.contiguous()


def _even_weights(rank: Int[Tensor, " points"], dtype: torch.dtype) -> Float[Tensor, "points 3"]:
    """Barycentric weights of the points of a low-discrepancy sequence, folded from the square onto the triangle."""
    place = (rank[:, None].to(torch.float64) + 1) * torch.tensor(_R2, dtype=torch.float64, device=rank.device)
    a, b = (place % 1.0).unbind(dim=1)
    beyond = a + b > 1
    a, b = torch.where(beyond, 1 - a, a), torch.where(beyond, 1 - b, b)
    return torch.stack([1 - a - b, a, b], dim=1).to(dtype)
