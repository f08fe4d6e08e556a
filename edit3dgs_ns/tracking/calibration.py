"""Eyes and mouth of a driver in the driver's own range, on any head.

Whoever is tracked has other lids and lips than the avatar, and a detector sees a closed eye as half open. What the driver's open
and closed eye look like is learned from the video; then the avatar's lids close by the same share, and its lips part by the same
share of the face. A video that shows no blink, or a mouth that is never closed, is not stretched: the levels that are learned stay
within what is usual.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.openness import FaceOpenness
from edit3dgs_ns.tracking.arkit_actions import arkit_actions
from edit3dgs_ns.tracking.detector import OUTER_EYE_CORNERS
from edit3dgs_ns.tracking.landmark_table import LandmarkTable
from edit3dgs_ns.tracking.surface_points import EYES, JAW, NECK, NUM_POSE, SurfacePoints

LIDS = ((386, 374), (159, 145))
"""Upper and lower lid of the left eye, then of the right one."""
LIPS = (13, 14)
"""Inner edge of the upper and of the lower lip."""
FACE_LANDMARKS = (*LIDS[0], *LIDS[1], *LIPS, *OUTER_EYE_CORNERS)
"""Those that `LidsAndLips` needs."""
HEIGHT = (168, 2)
"""Between the eyes and under the nose: shortened as lids and lips are when the head nods, and not by turning."""
OPEN_PERCENTILE, CLOSED_PERCENTILE = 70, 1
CLOSED_LIDS = (0.2, 0.5)
"""Share of the open eye's aperture that a closed eye may show to the detector."""
CLOSED_LIPS = 0.03
"""Most that the detector may show of a closed mouth, as a share of the distance between the eyes' outer corners."""
PARTED = 0.003
"""Metres between lips that are clearly apart."""
WIDEST = 1.4
"""Apertures beyond this, in open eyes, are no eyes."""
FRONTAL_PERCENTILE = 90
REFINEMENTS = 2
"""Corrections after the first linear step: apertures are nearly linear in amounts."""


def openness_of(landmarks: Float[np.ndarray, "T 478 2"]) -> FaceOpenness:
    """Openness in every frame, from landmarks in pixels."""
    height = _distance(landmarks, HEIGHT)
    lids = np.stack([_distance(landmarks, pair) for pair in LIDS], axis=1) / height[:, None]
    opened = np.percentile(lids, OPEN_PERCENTILE, axis=0)
    closed = np.clip(
        np.percentile(lids, CLOSED_PERCENTILE, axis=0), *(share * opened for share in CLOSED_LIDS)
    )
    shares = np.clip((lids - closed) / (opened - closed), 0, WIDEST)
    # In units of the face seen from the front.
    width = np.percentile(_distance(landmarks, OUTER_EYE_CORNERS) / height, FRONTAL_PERCENTILE)
    lips = _distance(landmarks, LIPS) / height / width
    lips = np.clip(lips - min(np.percentile(lips, CLOSED_PERCENTILE), CLOSED_LIPS), 0, None)
    return FaceOpenness(torch.from_numpy(shares).float(), torch.from_numpy(lips).float())


def _distance(landmarks: np.ndarray, pair: tuple[int, int]) -> Float[np.ndarray, " T"]:
    return np.maximum(np.linalg.norm(landmarks[:, pair[0]] - landmarks[:, pair[1]], axis=1), 1e-3)


@dataclass(frozen=True)
class LidsAndLips:
    """What closes the eyes and the mouth of one person's head."""

    points: SurfacePoints
    """Upper and lower lid of the left eye, of the right eye; upper and lower lip; outer corners of the eyes."""
    shape: Float[Tensor, " S"]
    blink: Float[Tensor, "2 E"]
    """Expression coefficients that close the left and the right eye."""
    wide: Float[Tensor, "2 E"]
    """Those that open it beyond rest."""
    close_lips: Float[Tensor, " E"]
    """Those that bring the lips together."""
    named: bool
    """Whether each of these is an expression of its own, which can be taken out of a face."""

    @classmethod
    def of(cls, head: FlameAssets, actor: FlameMotion, table: LandmarkTable) -> LidsAndLips:
        """Prepare an actor's head."""
        rows = np.array([int(np.flatnonzero(table.landmarks == number)[0]) for number in FACE_LANDMARKS])
        points = SurfacePoints.of(
            FlameModel.from_assets(head),
            torch.from_numpy(table.faces[rows]),
            torch.from_numpy(table.barycentric[rows]),
        )
        shape = torch.zeros(points.shapedirs.shape[-1]).double()
        shape[: len(actor.shape)] = actor.shape.double()

        actions = arkit_actions(head)

        def of_eyes(name: str) -> Tensor:
            return torch.stack([actions.expression(f"{name}{side}").double() for side in ("Left", "Right")])

        named = head.expression_names is not None
        return cls(
            points,
            shape,
            of_eyes("eyeBlink"),
            of_eyes("eyeWide"),
            actions.expression("mouthClose").double(),
            named,
        )

    def apertures(self, rows: Float[Tensor, "T D"]) -> Float[Tensor, "T 3"]:
        """Height of left eye, right eye and mouth in frames with a still head: metres; lips that overlap have less than none."""
        height = self.points.positions(self.shape, rows)[..., 1]
        return height[:, [0, 2, 4]] - height[:, [1, 3, 5]]

    def at_rest(self, blink: float = 0.0) -> tuple[Float[Tensor, " 3"], float]:
        """Apertures of the face at rest, and the distance between the eyes' outer corners (metres)."""
        row = torch.zeros(1, NUM_POSE + self.blink.shape[1]).double()
        row[:, NUM_POSE:] = blink * self.blink.sum(0)
        corners = self.points.positions(self.shape, row)[0, 6:]
        return self.apertures(row)[0], float((corners[0] - corners[1]).norm())


def calibrated(motion: FlameMotion, openness: FaceOpenness, face: LidsAndLips) -> FlameMotion:
    """The motion with lids and lips as far apart as the driver's.

    Args:
        motion: of the avatar, as it was retargeted.
        openness: of the driver, as many frames.
        face: of the avatar.
    """
    assert len(motion) == len(openness.mouth)
    rows = torch.zeros(len(motion), NUM_POSE + face.blink.shape[1]).double()
    rows[:, JAW], rows[:, EYES] = motion.jaw_pose.double(), motion.eyes_pose.double()
    rows[:, NUM_POSE : NUM_POSE + motion.expr.shape[1]] = motion.expr.double()
    assert not bool(rows[:, NECK].any())
    rest, size = face.at_rest()
    _open_mouth(rows, face, float(rest[2]), rest[2] + size * openness.mouth.double())
    closed, _ = face.at_rest(blink=1.0)
    goal = closed[:2] + openness.lids.double() * (rest[:2] - closed[:2])
    for side in range(2):
        _open_eye(rows, face, side, goal[:, side])
    expr = rows[:, NUM_POSE : NUM_POSE + motion.expr.shape[1]].to(motion.expr)
    return dataclasses.replace(motion, expr=expr, jaw_pose=rows[:, JAW].to(motion.jaw_pose))


def _open_mouth(rows: Tensor, face: LidsAndLips, rest: float, goal: Float[Tensor, " T"]) -> None:
    """Turn the jaw until the lips are as far apart; where it is shut already, bring the lips together."""
    jaw, step = JAW.start, 0.05
    # Lips that are pressed together overlap: a driver whose mouth is shut leaves them so.
    shut = face.apertures(rows)[:, 2].clamp(max=rest)
    goal = shut + ((goal - rest) / PARTED).clamp(0, 1) * (goal - shut)
    for _ in range(1 + REFINEMENTS):
        turned = rows.clone()
        turned[:, jaw] += step
        now = face.apertures(rows)[:, 2]
        slope = (face.apertures(turned)[:, 2] - now) / step
        change = (goal - now) / slope.clamp(min=1e-3)
        rows[:, jaw] = (rows[:, jaw] + change).clamp(
            min=torch.zeros_like(change), max=rows[:, jaw].clamp(min=0.5)
        )
    _amount(rows, face.close_lips, (goal - face.apertures(rows)[:, 2]).clamp(max=0), face, 2)


def _open_eye(rows: Tensor, face: LidsAndLips, side: int, goal: Float[Tensor, " T"]) -> None:
    """Blink, or widen the eye."""
    for direction in (face.blink[side], face.wide[side]) if face.named else ():
        rows[:, NUM_POSE:] -= _share(rows, direction)[:, None] * direction
    missing = goal - face.apertures(rows)[:, side]
    _amount(rows, face.blink[side], missing.clamp(max=0), face, side)
    _amount(rows, face.wide[side], missing.clamp(min=0), face, side)


def _share(rows: Tensor, direction: Tensor) -> Float[Tensor, " T"]:
    """How much of an action is in each frame."""
    return (rows[:, NUM_POSE:] @ direction / (direction @ direction)).clamp(0, 1)


def _amount(
    rows: Tensor, direction: Tensor, missing: Float[Tensor, " T"], face: LidsAndLips, column: int
) -> None:
    """Add an action, 0 to 1, so that an aperture changes by what is missing."""
    begin, amount = face.apertures(rows)[:, column], torch.zeros_like(missing)
    probe = torch.full_like(missing, 1.0)
    for _ in range(1 + REFINEMENTS):
        moved = rows.clone()
        moved[:, NUM_POSE:] += probe[:, None] * direction
        slope = (face.apertures(moved)[:, column] - begin) / probe
        amount = torch.where(slope * missing > 0, missing / slope, torch.zeros_like(missing)).clamp(0, 1)
        probe = amount.clamp(min=0.05)
    rows[:, NUM_POSE:] += amount[:, None] * direction
