"""Camera paths for videos; c2w is camera-to-world, OpenGL axes (x right, y up, looks along -z), metres."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from edit3dgs_ns.errors import UserError


def sway(
    c2w: Float[np.ndarray, "4 4"],
    target: Float[np.ndarray, " 3"],
    count: int,
    angle: float,
    lift: float = 0.0,
) -> Float[np.ndarray, "count 4 4"]:
    """Camera poses that swing once to both sides about the vertical axis through `target`, and return.

    Args:
        c2w: the pose at the start, half-way and at the end.
        count: number of poses.
        angle: farthest turn to each side, radians.
        lift: farthest turn up and down about the camera's own horizontal axis, radians.
    """
    phase = 2 * np.pi * np.arange(count) / count
    poses = []
    for yaw, pitch in zip(angle * np.sin(phase), lift * np.sin(2 * phase), strict=True):
        turn = _rotation_about(np.array([0.0, 1.0, 0.0]), yaw)
        right = turn @ c2w[:3, 0]
        turn = _rotation_about(right, pitch) @ turn
        pose = np.eye(4)
        pose[:3, :3] = turn @ c2w[:3, :3]
        pose[:3, 3] = target + turn @ (c2w[:3, 3] - target)
        poses.append(pose)
    return np.stack(poses)


def orbit(
    c2w: Float[np.ndarray, "4 4"], target: Float[np.ndarray, " 3"], count: int
) -> Float[np.ndarray, "count 4 4"]:
    """Camera poses evenly around the vertical axis through `target`; after the last comes the first again.

    Args:
        c2w: the first pose.
        count: number of poses.
    """
    poses = []
    for yaw in 2 * np.pi * np.arange(count) / count:
        turn = _rotation_about(np.array([0.0, 1.0, 0.0]), yaw)
        pose = np.eye(4)
        pose[:3, :3] = turn @ c2w[:3, :3]
        pose[:3, 3] = target + turn @ (c2w[:3, 3] - target)
        poses.append(pose)
    return np.stack(poses)


def _rotation_about(axis: Float[np.ndarray, " 3"], angle: float) -> Float[np.ndarray, "3 3"]:
    """Rotation by `angle` radians about a unit axis."""
    return Rotation.from_rotvec(angle * axis).as_matrix()


def focus_point(c2w: Float[np.ndarray, "views 4 4"]) -> Float[np.ndarray, " 3"]:
    """The point nearest to all optical axes (least squares).

    Raises:
        ValueError: the axes are parallel, so that no point is nearest.
    """
    directions = -c2w[:, :3, 2]
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    matrix = across.sum(axis=0)
    if np.linalg.cond(matrix) > 1e8:
        raise UserError("The optical axes of all cameras are parallel, so that no point is nearest to them.")
    return np.linalg.solve(matrix, np.einsum("vij,vj->i", across, c2w[:, :3, 3]))
