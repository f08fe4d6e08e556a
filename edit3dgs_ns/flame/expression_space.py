"""Distance in expression between two timesteps of a motion, whatever the head's pose is.

A place in expression space is the surface of the head, posed without the head's own turn and place. Distances are root
mean square displacements of that surface, in millimetres. Coefficients of any model and direction (a smile, a radian of the
jaw, a gaze) become comparable by what they move; what does not move with the expression adds nothing, so that no region
has to be named.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edit3dgs_ns.flame.model import FlamePose, ShapedHead
from edit3dgs_ns.flame.motion import FlameMotion

_AT_ONCE = 64
"""Frames that are posed together: what bounds the memory."""
_STILL = 1e-6
"""Vertices that move less than this (metres) over the whole motion are left out."""


@torch.no_grad()
def expression_space(head: ShapedHead, motion: FlameMotion) -> Float[Tensor, "times coordinates"]:
    """A point for every frame; Euclidean distances are displacements in millimetres, the root mean square over the surface.

    Args:
        head: the head that moves.
        motion: expression, jaw and eyes of every frame. Rotation, neck and translation are not looked at.
    """
    weights = _area_shares(head.v_shaped, head.model.faces).sqrt()[:, None]
    chunks = [_faces_posed(head, motion, chunk) for chunk in torch.arange(len(motion)).split(_AT_ONCE)]
    low = torch.stack([chunk.amin(dim=0) for chunk in chunks]).amin(dim=0)
    high = torch.stack([chunk.amax(dim=0) for chunk in chunks]).amax(dim=0)
    moving = ((high - low) > _STILL).any(dim=-1)
    return torch.cat([(1000 * weights * chunk)[:, moving].flatten(1) for chunk in chunks])


def _faces_posed(
    head: ShapedHead, motion: FlameMotion, frames: Int[Tensor, " some"]
) -> Float[Tensor, "some vertices 3"]:
    """The vertices, with a head that keeps still."""
    pose = motion.pose(frames)
    still = torch.zeros_like(pose.rotation)
    return head.posed(FlamePose(pose.expr, still, still, pose.jaw_pose, pose.eyes_pose, still))


def _area_shares(
    vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"]
) -> Float[Tensor, " vertices"]:
    """The share of the surface that belongs to each vertex: a third of each of its faces. Sums to 1."""
    a, b, c = vertices[faces].unbind(dim=1)
    areas = torch.linalg.cross(b - a, c - a).norm(dim=-1)
    shares = torch.zeros_like(vertices[:, 0]).index_add_(
        0, faces.flatten().long(), areas.repeat_interleave(3)
    )
    return shares / shares.sum()
