"""Expression error between two poses of one head: lips, jaw, lids and gaze, compared on its mesh.

Errors are distances of the same vertices, posed twice by one head model, and angles of the same joints: millimetres and
degrees of the tracked head, whoever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from edit3dgs_ns.flame.model import FlamePose, ShapedHead


@dataclass(frozen=True)
class ExpressionError:
    """Error of an expression. Lips and lids: None where the head model does not name them."""

    jaw_degrees: float
    """Angle between the two rotations of the jaw."""
    lips_mm: float | None
    """Mean distance of the lips' vertices."""
    lids_mm: float | None
    """Mean distance of the eyelids' vertices."""
    gaze_degrees: float | None
    """Angle between the two gaze directions, mean over the visible eyes; None where neither is visible."""


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
        wanted: pose of the rig.
        found: pose fitted to the image.
        regions: vertices by name; `lips` and `eyelids` are used.
        eyes_seen: whether the left and the right eye are visible; a shut eye has no gaze.
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
    gaze = [gaze_angle(a, b) for a, b, seen in eyes if seen]
    return ExpressionError(
        jaw_degrees=rotation_angle(wanted.jaw_pose[0], found.jaw_pose[0]),
        lips_mm=millimetres("lips"),
        lids_mm=millimetres("eyelids"),
        gaze_degrees=float(np.mean(gaze)) if gaze else None,
    )


def rotation_angle(a: Float[Tensor, " 3"], b: Float[Tensor, " 3"]) -> float:
    """Degrees from one rotation (axis-angle, radians) to another."""
    first, second = (Rotation.from_rotvec(pose.detach().cpu().double().numpy()) for pose in (a, b))
    return float(np.rad2deg((first.inv() * second).magnitude()))


def gaze_angle(a: Float[Tensor, " 3"], b: Float[Tensor, " 3"]) -> float:
    """Degrees between the gaze directions of two rotations of an eye; turns about the direction itself do not count."""
    u, v = (
        Rotation.from_rotvec(pose.detach().cpu().double().numpy()).apply([0.0, 0.0, 1.0]) for pose in (a, b)
    )
    return float(np.rad2deg(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v)))
