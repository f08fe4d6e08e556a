"""Whether a face still does what the rig does: lips, jaw, lids and gaze of two poses of one head, compared on its mesh.

Errors are distances of the same vertices, posed twice by one head model, and angles of the same joints: millimetres and
degrees of the tracked head, whoever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.flame.model import FlamePose, ShapedHead, axis_angle_to_matrix


@dataclass(frozen=True)
class ExpressionError:
    """How far a face is from the expression that was asked for. Lips and lids: None where the head model does not name them."""

    jaw_degrees: float
    """Angle between the two rotations of the jaw."""
    lips_mm: float | None
    """Mean distance of the lips' vertices."""
    lids_mm: float | None
    """Mean distance of the eyelids' vertices."""
    gaze_degrees: float | None
    """Angle between the two directions of sight, mean of the eyes that are seen. None: neither is."""


def expression_error(
    head: ShapedHead,
    wanted: FlamePose,
    found: FlamePose,
    regions: Mapping[str, np.ndarray],
    eyes_seen: tuple[bool, bool] = (True, True),
) -> ExpressionError:
    """Compare two poses of one frame; head turn and translation are taken from `wanted`, so that they do not count.

    Landmark and gaze errors as in face reenactment (average keypoint distance, for example Siarohin et al., NeurIPS 2019), in the
    rig's millimetres instead of pixels.

    Args:
        head: the person.
        wanted: what the rig was posed to.
        found: what the picture shows.
        regions: vertices by name; `lips` and `eyelids` are used.
        eyes_seen: whether the picture shows the left and the right eye: where one that is shut looks, nobody can tell.
    """
    found = FlamePose(
        found.expr,
        wanted.rotation,
        wanted.neck_pose,
        found.jaw_pose,
        found.eyes_pose,
        wanted.translation,
    )
    with torch.no_grad():
        distance = (head.posed(wanted)[0] - head.posed(found)[0]).norm(dim=-1)

    def millimetres(region: str) -> float | None:
        rows = regions.get(region)
        return None if rows is None or not len(rows) else 1000 * float(distance[torch.as_tensor(rows)].mean())

    eyes = zip(wanted.eyes_pose[0].split(3), found.eyes_pose[0].split(3), eyes_seen, strict=True)
    gaze = [sight_angle(a, b) for a, b, seen in eyes if seen]
    return ExpressionError(
        jaw_degrees=rotation_angle(wanted.jaw_pose[0], found.jaw_pose[0]),
        lips_mm=millimetres("lips"),
        lids_mm=millimetres("eyelids"),
        gaze_degrees=float(np.mean(gaze)) if gaze else None,
    )


def rotation_angle(a: Float[Tensor, " 3"], b: Float[Tensor, " 3"]) -> float:
    """Degrees from one rotation (axis-angle, radians) to another."""
    turn = axis_angle_to_matrix(a.double()).T @ axis_angle_to_matrix(b.double())
    axis = torch.stack([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    # The arc tangent keeps its digits near 0, where the arc cosine of the trace loses half of them.
    return float(torch.rad2deg(torch.atan2(axis.norm(), turn.diagonal().sum() - 1)))


def sight_angle(a: Float[Tensor, " 3"], b: Float[Tensor, " 3"]) -> float:
    """Degrees between the directions that two rotations of an eye look in; turns about that direction do not show."""
    forward = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    u, v = (axis_angle_to_matrix(pose.double()) @ forward for pose in (a.cpu(), b.cpu()))
    return float(torch.rad2deg(torch.atan2(torch.linalg.cross(u, v).norm(), u @ v)))
