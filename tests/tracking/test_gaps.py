"""Frames without a face: what is filled, what stays, and what is no longer trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edit3dgs_ns.capture.driver import Driver, DriverImages
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.motion_files import RecordedMotion
from edit3dgs_ns.flame.openness import FaceOpenness
from edit3dgs_ns.tracking.gaps import with_gaps_filled

NUMBERS = np.array([*range(2, 10), *range(20, 30)])
"""Frames 10 to 19 show nobody."""
FOUND = np.isin(np.arange(32), NUMBERS)
FPS = 25.0


def driver(yaw: np.ndarray) -> Driver:
    """Turns by these degrees; its mouth opens evenly over the video."""
    motion = FlameMotion.zeros(len(yaw), 3, 2)
    motion.neck_pose[:, 1] = torch.from_numpy(np.radians(yaw))
    mouth = torch.from_numpy(NUMBERS / 100)
    motion.expr[:, 0] = mouth
    lids = torch.stack([mouth, 1 - mouth], dim=1)
    images = DriverImages(tuple(Path(f"{number}.png") for number in NUMBERS), None)
    return Driver(RecordedMotion(motion, Path("me"), fps=FPS, openness=FaceOpenness(lids, mouth)), images)


def yaw_of(filled: Driver) -> np.ndarray:
    return np.degrees(filled.recorded.motion.neck_pose[:, 1].numpy())


def test_a_head_that_comes_back_turned_turns_meanwhile() -> None:
    yaw = np.where(NUMBERS < 15, -40.0, 40.0) + 0.3 * NUMBERS
    filled = with_gaps_filled(driver(yaw), NUMBERS, FOUND)
    shown = np.arange(2, 30)
    np.testing.assert_allclose(yaw_of(filled)[NUMBERS - 2], yaw, atol=1e-3)
    assert len(yaw_of(filled)) == len(shown) and np.abs(np.diff(yaw_of(filled))).max() < 9
    openness = filled.recorded.openness
    assert openness is not None
    for values in (openness.mouth, openness.lids[:, 0], filled.recorded.motion.expr[:, 0]):
        np.testing.assert_allclose(values, shown / 100, atol=1e-5)
    assert filled.images is not None
    assert [int(path.stem) for path in filled.images.images] == [min(n, 9) if n < 20 else n for n in shown]
    (note,) = filled.recorded.notes
    assert note.startswith("10 of 28 frames (0.4 of 1.1 s) show no whole face")


@pytest.mark.parametrize(("frame", "stays"), [(20, False), (22, False), (8, False), (29, True)])
def test_a_jump_beside_the_gap_is_a_half_hidden_face(frame: int, stays: bool) -> None:
    yaw = np.where(frame == NUMBERS, 50.0, 0.0)
    filled = yaw_of(with_gaps_filled(driver(yaw), NUMBERS, FOUND))
    assert (filled[frame - 2] > 45) == stays
    assert stays or np.abs(filled).max() < 1e-3


def test_without_a_gap_nothing_is_done() -> None:
    numbers = np.arange(2, 20)
    whole = driver(np.zeros(len(NUMBERS)))
    assert with_gaps_filled(whole, numbers, np.isin(np.arange(30), numbers)) is whole
