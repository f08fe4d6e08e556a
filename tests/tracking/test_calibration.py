"""Eyes and mouth of a driver, in the driver's own range, on another head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.openness import FaceOpenness
from edit3dgs_ns.tracking.calibration import LidsAndLips, calibrated, openness_of
from edit3dgs_ns.tracking.landmark_table import load_landmark_table
from edit3dgs_ns.tracking.surface_points import JAW, NUM_POSE

HEAD = load_assets()
TABLE = load_landmark_table(HEAD)
FRAMES = 60


def face_of(lids: np.ndarray, lips: np.ndarray, size: float = 100.0) -> np.ndarray:
    """Landmarks of a face whose eyes are `lids` high and whose lips are `lips` apart, in distances between the eyes."""
    landmarks = np.zeros((len(lids), 478, 2))
    for number, place in ((33, (-0.5, 0.0)), (263, (0.5, 0.0)), (168, (0.0, 0.0)), (2, (0.0, 0.6))):
        landmarks[:, number] = place
    for (upper, lower), x, height in (
        ((159, 145), -0.3, lids),
        ((386, 374), 0.3, lids),
        ((13, 14), 0.0, lips),
    ):
        middle = 0.9 if upper == 13 else 0.0
        landmarks[:, upper] = np.stack([np.full_like(height, x), middle - height / 2], axis=1)
        landmarks[:, lower] = np.stack([np.full_like(height, x), middle + height / 2], axis=1)
    return size * landmarks


def test_a_blink_closes_whatever_the_detector_sees_of_a_closed_eye() -> None:
    lids, lips = np.full(FRAMES, 0.15), np.full(FRAMES, 0.01)
    lids[20:23] = 0.06
    lips[40] = 0.31
    found = openness_of(face_of(lids, lips))
    assert found.lids[21].max() < 1e-3 and found.lids[:18].sub(1).abs().max() < 1e-3
    assert found.mouth[40] == pytest.approx(0.30, abs=0.01) and found.mouth[:39].max() < 1e-3


def test_openness_is_that_of_a_face_of_any_size_that_nods() -> None:
    rng = np.random.default_rng(0)
    landmarks = face_of(rng.uniform(0.06, 0.15, FRAMES), rng.uniform(0, 0.4, FRAMES))
    nodding = 0.5 * landmarks.copy()
    nodding[: FRAMES // 2, :, 1] *= 0.8  # a nod shortens what is upright, some frames are seen from the front
    still, moved = openness_of(landmarks), openness_of(nodding)
    torch.testing.assert_close(still.lids, moved.lids)
    torch.testing.assert_close(still.mouth, moved.mouth, atol=1e-3, rtol=0.3)


def test_a_clip_without_a_blink_or_without_a_closed_mouth_is_not_stretched() -> None:
    wave = np.sin(np.arange(FRAMES))
    found = openness_of(face_of(0.15 * (1 + 0.05 * wave), 0.2 + 0.01 * wave))
    assert found.lids.min() > 0.75, "a tenth of the eye's height is not a blink"
    assert found.mouth.min() > 0.15, "a mouth that is always open stays open"


@pytest.fixture(scope="module")
def actor() -> FlameMotion:
    """Another face, which makes faces."""
    generator = torch.Generator().manual_seed(3)
    names = HEAD.shape_names
    motion = FlameMotion.zeros(FRAMES, len(names), len(HEAD.expression_names))
    motion.shape[names.index("gender_male")] = 0.8
    for name in (
        "mouthSmileLeft",
        "mouthPucker",
        "eyeSquintLeft",
        "eyeLookDownRight",
        "browDownLeft",
        "eyeBlinkLeft",
    ):
        motion.expr[:, HEAD.expression_index(name)] = 0.4 * torch.rand(FRAMES, generator=generator)
    motion.jaw_pose[:, 0] = 0.2 * torch.rand(FRAMES, generator=generator)
    return motion


def rows_of(motion: FlameMotion) -> torch.Tensor:
    rows = torch.zeros(len(motion), NUM_POSE + motion.expr.shape[1]).double()
    rows[:, JAW], rows[:, NUM_POSE:] = motion.jaw_pose.double(), motion.expr.double()
    return rows


def test_the_avatars_lids_and_lips_are_as_far_apart_as_the_drivers(actor: FlameMotion) -> None:
    face = LidsAndLips.of(HEAD, actor, TABLE)
    rest, size = face.at_rest()
    shares = torch.linspace(0, 1, FRAMES)
    openness = FaceOpenness(torch.stack([shares, 1 - shares], dim=1), 0.1 + 0.3 * shares)
    played = calibrated(actor, openness, face)
    apertures = face.apertures(rows_of(played))
    closed = face.at_rest(blink=1.0)[0]
    found = (apertures[:, :2] - closed[:2]) / (rest[:2] - closed[:2])
    assert (found - openness.lids).abs().mean() < 0.03
    torch.testing.assert_close(
        apertures[:, 2] - rest[2], size * openness.mouth.double(), atol=2e-4, rtol=0.01
    )
    others = [HEAD.expression_index(name) for name in ("mouthSmileLeft", "browDownLeft", "eyeSquintLeft")]
    torch.testing.assert_close(played.expr[:, others], actor.expr[:, others])
    assert played.expr.min() >= 0 and played.expr.max() <= 1 and played.jaw_pose[:, 0].min() >= 0


def test_a_shut_mouth_is_shut(actor: FlameMotion) -> None:
    face = LidsAndLips.of(HEAD, actor, TABLE)
    openness = FaceOpenness(torch.ones(FRAMES, 2), torch.zeros(FRAMES))
    gap = face.apertures(rows_of(calibrated(actor, openness, face)))[:, 2]
    rest = face.at_rest()[0][2]
    assert (face.apertures(rows_of(actor))[:, 2] - rest).max() > 0.01
    assert (gap - rest).max() < 1e-4
