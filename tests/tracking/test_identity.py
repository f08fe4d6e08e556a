"""Another person at the same place, or after a gap, is noticed; expressions, turns and steps are not another person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edit3dgs_ns.evaluation.video import VideoWriter
from edit3dgs_ns.synthetic.replay import Replay
from edit3dgs_ns.synthetic.settings import CaptureSettings
from edit3dgs_ns.tracking.detections import detect_video, keep_detections, person_notes, read_detections
from edit3dgs_ns.tracking.video import describe_video
from tests.speaking_video import moved_right

pytest.importorskip("mediapipe", reason="mediapipe is not installed: see edit3dgs doctor")

FRAMES, SIZE, FPS = 8, 160, 10.0


def _person(seed: int) -> list[np.ndarray]:
    settings = CaptureSettings(seed=seed, width=SIZE, height=SIZE, cameras=1, frames=FRAMES, samples=2)
    replay = Replay(settings)
    sequence, (camera,) = next(iter(replay.motion)), replay.cameras
    return [np.rint(255 * replay.render(sequence, t, camera).rgb).astype(np.uint8) for t in range(FRAMES)]


@pytest.fixture(scope="module")
def one() -> list[np.ndarray]:
    return _person(3)


@pytest.fixture(scope="module")
def other() -> list[np.ndarray]:
    return _person(6)


def _notes(folder: Path, frames: list[np.ndarray]) -> list[str]:
    path = folder / "me.mp4"
    with VideoWriter(path, FPS) as video:
        for frame in frames:
            video.add(frame)
    described = describe_video(path)
    keep_detections(folder, detect_video(described, lambda what, done, total: None))
    kept = read_detections(folder)
    assert kept is not None
    return person_notes(kept, described)


def test_one_person_is_one(one: list[np.ndarray], tmp_path: Path) -> None:
    nobody = [0 * one[0]] * 2
    assert not _notes(tmp_path, [*one, *nobody, *one[::-1]])


def test_a_head_that_leaves_the_frame_and_comes_back_is_the_same(
    one: list[np.ndarray], tmp_path: Path
) -> None:
    frames = one + one[::-1]
    leaving = [moved_right(frame, 14 * n) for n, frame in enumerate(frames[:12])]
    assert not _notes(tmp_path, [*leaving, *leaving[::-1]])


def test_another_person_at_the_same_place(
    one: list[np.ndarray], other: list[np.ndarray], tmp_path: Path
) -> None:
    (note,) = _notes(tmp_path, [*one, *other])
    assert note.startswith("At 0.8 s the head looks like another person's")


def test_another_person_after_a_gap(one: list[np.ndarray], other: list[np.ndarray], tmp_path: Path) -> None:
    (note,) = _notes(tmp_path, [*one, *[0 * one[0]] * 2, *other])
    assert note.startswith("At 1.0 s the head")
