"""Camera paths for videos; c2w is camera-to-world, OpenGL axes (x right, y up, looks along -z), metres."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.errors import UserError


def sway(
    c2w: Float[np.ndarray, "4 4"],
    target: Float[np.ndarray, " 3"],
    count: int,
    angle: float,
    lift: float = 0.0,
) -> Float[np.ndarray, "count 4 4"]:
    """A camera that swings once to both sides about the vertical axis through `target`, and returns.

    Args:
        c2w: where it starts, passes again half-way, and ends.
        count: number of poses.
        angle: farthest turn to each side, radians.
        lift: farthest turn up and down about the camera's own horizontal axis, radians.
    """
    phase = 2 * np.pi * np.arange(count) / count
    poses = []
    for yaw, pitch in zip(angle * np.sin(phase), lift * np.sin(2 * phase), strict=True):
        turn = rotation_about(np.array([0.0, 1.0, 0.0]), yaw)
        right = turn @ c2w[:3, 0]
        turn = rotation_about(right, pitch) @ turn
        pose = np.eye(4)
        pose[:3, :3] = turn @ c2w[:3, :3]
        pose[:3, 3] = target + turn @ (c2w[:3, 3] - target)
        poses.append(pose)
    return np.stack(poses)


def orbit(
    c2w: Float[np.ndarray, "4 4"], target: Float[np.ndarray, " 3"], count: int
) -> Float[np.ndarray, "count 4 4"]:
    """A camera that goes once around the vertical axis through `target`, at an even pace; the pose after the last is the first.

    Args:
        c2w: where it starts.
        count: number of poses.
    """
    poses = []
    for yaw in 2 * np.pi * np.arange(count) / count:
        turn = rotation_about(np.array([0.0, 1.0, 0.0]), yaw)
        pose = np.eye(4)
        pose[:3, :3] = turn @ c2w[:3, :3]
        pose[:3, 3] = target + turn @ (c2w[:3, 3] - target)
        poses.append(pose)
    return np.stack(poses)


def rotation_about(axis: Float[np.ndarray, " 3"], angle: float) -> Float[np.ndarray, "3 3"]:
    """Rotation by `angle` radians about a unit axis (Rodrigues' formula)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def focus_point(c2w: Float[np.ndarray, "views 4 4"]) -> Float[np.ndarray, " 3"]:
    """The point nearest to all optical axes (least squares): what the cameras look at.

    Raises:
        ValueError: the axes are parallel, so that no point is nearest.
    """
    directions = -c2w[:, :3, 2]
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    matrix = across.sum(axis=0)
    if np.linalg.cond(matrix) > 1e8:
        raise UserError("All cameras look the same way; they have no common point to look at.")
    return np.linalg.solve(matrix, np.einsum("vij,vj->i", across, c2w[:, :3, 3]))
