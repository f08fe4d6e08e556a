"""Errors of a tracked motion against the true one.

A single camera cannot tell a small near head from a large far one, and where the neck ends is a matter of the head's shape. So one
similarity (Umeyama, 1991), over the face's vertices of all frames together, is taken out before places and rotations are compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.regions import region_vertices
from edit3dgs_ns.tracking.landmark_table import LandmarkTable, load_landmark_table

LIDS = {"right": (159, 145), "left": (386, 374)}
"""Landmarks in the middle of the upper and of the lower lid."""
Points = Float[np.ndarray, "*n 3"]


@dataclass(frozen=True)
class Similarity:
    """`scale * R @ x + shift`."""

    scale: float
    R: Float[np.ndarray, "3 3"]
    shift: Float[np.ndarray, " 3"]

    @classmethod
    def between(cls, points: Float[np.ndarray, "n 3"], onto: Float[np.ndarray, "n 3"]) -> Similarity:
        """The least-squares similarity that carries `points` onto others (Umeyama, 1991)."""
        a, b = points - points.mean(0), onto - onto.mean(0)
        u, strengths, vt = np.linalg.svd(b.T @ a)
        signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
        R = (u * signs) @ vt
        scale = float((strengths * signs).sum() / (a**2).sum())
        return cls(scale, R, onto.mean(0) - scale * R @ points.mean(0))

    def __call__(self, points: Points) -> Points:
        """The points, carried over."""
        return self.scale * points @ self.R.T + self.shift


@dataclass(frozen=True)
class TrackingErrors:
    """Means over all frames."""

    rotation_deg: float
    """Of the head: root and neck together."""
    vertices_mm: float
    """Of the face's vertices."""
    jaw_deg: float
    gaze_deg: float
    """Of both eyes' directions, in the head."""
    lids_mm: float
    """Of the distance between the lids' middles."""
    focal_percent: float


def tracking_errors(
    head: FlameAssets, tracked: FlameMotion, true: FlameMotion, focal: float, true_focal: float
) -> TrackingErrors:
    """Compares two motions of one head model, frame by frame.

    Args:
        head: that both belong to.
        tracked, true: of the same frames.
        focal, true_focal: in pixels of the same image.
    """
    assert len(tracked) == len(true)
    model = FlameModel.from_assets(head)
    a, b = (posed_vertices(model, motion) for motion in (tracked, true))
    face = region_vertices(head, "face")
    similarity = Similarity.between(a[:, face].reshape(-1, 3), b[:, face].reshape(-1, 3))
    places = np.linalg.norm(similarity(a[:, face]) - b[:, face], axis=-1)
    turns = Rotation.from_matrix(similarity.R) * _head_turns(tracked)
    table = load_landmark_table(head)
    lids = [lid_openings(head, table, vertices) for vertices in (similarity(a), b)]
    return TrackingErrors(
        rotation_deg=_mean_angle(turns, _head_turns(true)),
        vertices_mm=1000 * float(places.mean()),
        jaw_deg=_mean_angle(_turns(tracked.jaw_pose), _turns(true.jaw_pose)),
        gaze_deg=float(np.mean([_gaze_error(tracked, true, eye) for eye in range(2)])),
        lids_mm=1000 * float(np.abs(lids[0] - lids[1]).mean()),
        focal_percent=100 * abs(focal / true_focal - 1),
    )


@torch.no_grad()
def posed_vertices(model: FlameModel, motion: FlameMotion) -> Float[np.ndarray, "T V 3"]:
    """Vertices of every frame, metres."""
    shaped = model.shaped(motion.shape, motion.static_offset)
    return np.concatenate(
        [shaped.posed(motion.pose(slice(t, t + 1))).double().numpy() for t in range(len(motion))]
    )


def lid_openings(
    head: FlameAssets, table: LandmarkTable, vertices: Float[np.ndarray, "T V 3"]
) -> Float[np.ndarray, "T eyes"]:
    """Distance between the middles of the lids, metres."""
    return np.stack(
        [
            np.linalg.norm(
                _landmark(head, table, vertices, up) - _landmark(head, table, vertices, low), axis=-1
            )
            for up, low in LIDS.values()
        ],
        axis=-1,
    )


def _landmark(head: FlameAssets, table: LandmarkTable, vertices: np.ndarray, number: int) -> np.ndarray:
    (row,) = np.flatnonzero(table.landmarks == number)
    return np.einsum("k,tkc->tc", table.barycentric[row], vertices[:, head.faces[table.faces[row]]])


def _turns(axis_angles: torch.Tensor) -> Rotation:
    return Rotation.from_rotvec(axis_angles.double().numpy())


def _head_turns(motion: FlameMotion) -> Rotation:
    return _turns(motion.rotation) * _turns(motion.neck_pose)


def _mean_angle(a: Rotation, b: Rotation) -> float:
    return float(np.degrees((a.inv() * b).magnitude()).mean())


def _gaze_error(tracked: FlameMotion, true: FlameMotion, eye: int) -> float:
    """Degrees between the directions that one eye looks in; how it is rolled about them is not seen."""
    directions = [
        _turns(motion.eyes_pose[:, 3 * eye : 3 * eye + 3]).apply([0.0, 0.0, 1.0])
        for motion in (tracked, true)
    ]
    return float(np.degrees(np.arccos(np.clip((directions[0] * directions[1]).sum(-1), -1, 1))).mean())
