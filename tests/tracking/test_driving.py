"""A video drives an avatar: tracked once, beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from edit3dgs_ns.commands.options import check_motion
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.evaluation.video import VideoWriter
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.retarget import RetargetOptions
from edit3dgs_ns.tracking.calibration import LidsAndLips
from edit3dgs_ns.tracking.driving import drive, open_driver, tracked_folder
from edit3dgs_ns.tracking.landmark_transfer import dense_table_of
from edit3dgs_ns.tracking.surface_points import JAW, NUM_POSE
from edit3dgs_ns.tracking.video import describe_video, read_frames
from tests.command_line import edit3dgs
from tests.flame.open_head_as_flame import write_as_flame
from tests.speaking_video import spoken, write_leaving_video, write_speaking_video

pytest.importorskip("mediapipe", reason="mediapipe is not installed: see edit3dgs doctor")

FRAMES, SIZE, FPS = 10, 160, 12.0
HEAD = load_assets()


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered person who speaks."""
    return write_speaking_video(tmp_path_factory.mktemp("driver") / "talk.mp4", FRAMES, SIZE, FPS)


def test_it_is_tracked_once_and_plays_at_its_own_rate(talk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_driver(talk, HEAD)
    assert len(first.recorded.motion) == FRAMES and first.recorded.fps == pytest.approx(FPS)
    assert first.name == "talk" and first.images is not None and len(first.images.images) == FRAMES
    assert tracked_folder(talk).is_dir()
    monkeypatch.setattr("edit3dgs_ns.tracking.job.track_video", None)  # calling it would fail
    again = open_driver(talk, HEAD)
    np.testing.assert_array_equal(again.recorded.motion.expr, first.recorded.motion.expr)
    assert again.recorded.openness is not None and not again.recorded.notes


@pytest.mark.parametrize("lost", ["flame_param/00003.npz", "tracking.json", "landmarks.npz"])
def test_a_spoilt_tracking_is_made_again_and_said(
    talk: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_driver(talk, HEAD).recorded.motion
    spoilt = tracked_folder(talk) / lost
    spoilt.write_bytes(spoilt.read_bytes()[:100])
    again = open_driver(talk, HEAD).recorded
    assert any("talk.mp4 was tracked again" in note for note in again.notes)
    np.testing.assert_allclose(again.motion.expr, whole.expr, atol=1e-4)
    assert not open_driver(talk, HEAD).recorded.notes
    # One of another version is fitted anew, with the landmarks that are there.
    monkeypatch.setattr("edit3dgs_ns.tracking.output.tracker_version", lambda: "another")
    monkeypatch.setattr("edit3dgs_ns.tracking.detections.FaceDetector", None)
    np.testing.assert_allclose(open_driver(talk, HEAD).recorded.motion.expr, whole.expr, atol=1e-4)


def test_a_folder_of_somebody_else_beside_the_video_is_left_alone(talk: Path, tmp_path: Path) -> None:
    video = tmp_path / "talk.mp4"
    video.write_bytes(talk.read_bytes())
    mine = tracked_folder(video) / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("keep")
    with pytest.raises(UserError, match=r"mine\.txt"):
        open_driver(video, HEAD)
    assert mine.read_text() == "keep"


@pytest.mark.parametrize("kind", ["talk.gif", "talk"])
def test_a_gif_and_a_folder_of_frames_drive_as_a_video_does(kind: str, talk: Path, tmp_path: Path) -> None:
    from PIL import Image

    frames = [Image.fromarray(frame) for frame in read_frames(describe_video(talk))]
    path = tmp_path / kind
    if path.suffix:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=80, loop=0)
    else:
        path.mkdir()
        for number, frame in enumerate(frames):
            frame.save(path / f"{number}.png")
    check_motion(path)
    driver = open_driver(path, HEAD)
    assert len(driver.recorded.motion) == FRAMES and driver.name == "talk"
    assert tracked_folder(path).is_dir()
    whole = open_driver(talk, HEAD).recorded.motion
    assert np.corrcoef(driver.recorded.motion.jaw_pose[:, 0], whole.jaw_pose[:, 0])[0, 1] > 0.9


def test_a_face_that_leaves_the_frame_for_a_while(tmp_path: Path) -> None:
    """The motion lasts as long as the video, does not jump, and what is a guess is said."""
    frames = 30
    driver = open_driver(write_leaving_video(tmp_path / "leaves.mp4", frames, SIZE, FPS), HEAD)
    report = json.loads((tracked_folder(tmp_path / "leaves.mp4") / "tracking.json").read_text())
    lost = len(report["frames_without_face"]) + len(report["frames_cut_off"])
    assert lost >= 8 and not [note for note in report["notes"] if "another person" in note]
    (note,) = driver.recorded.notes
    assert note.startswith(f"{lost} of {frames} frames ({lost / FPS:.1f} of 2.5 s) show no whole face")
    assert driver.images is not None and len(driver.images.images) == len(driver.recorded.motion) == frames
    actor = FlameMotion.zeros(1, HEAD.shapedirs.shape[2], HEAD.exprdirs.shape[2])
    played, _ = drive(driver.recorded, actor, HEAD, RetargetOptions(head_pose="relative"))
    turn = Rotation.from_rotvec(played.rotation.numpy()) * Rotation.from_rotvec(played.neck_pose.numpy())
    assert np.degrees((turn[:-1].inv() * turn[1:]).magnitude()).max() < 15


def test_flame_is_driven_by_the_fit_of_flame(
    talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with FLAME's keys, whose expressions are mixtures of the open head's; no landmarks beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flame = load_assets(write_as_flame(tmp_path / "flame.npz", num_expr=30))
    driver = open_driver(talk, flame)
    assert driver.name == "talk" and tracked_folder(talk, flame) != tracked_folder(talk)
    actor = FlameMotion.zeros(1, flame.shapedirs.shape[2], 30)
    played, _ = drive(driver.recorded, actor, flame)
    true = spoken(FRAMES, SIZE)
    opening = _mouth_opening(HEAD, *(torch.from_numpy(np.stack(rows)) for rows in zip(*true, strict=True)))
    assert np.corrcoef(_mouth_opening(flame, played.jaw_pose, played.expr), opening)[0, 1] > 0.9


def _mouth_opening(head: FlameAssets, jaw: torch.Tensor, expr: torch.Tensor) -> np.ndarray:
    """Gap between the lips: other heads open the same mouth with another share of jaw and expression."""
    actor = FlameMotion.zeros(1, head.shapedirs.shape[2], expr.shape[1])
    face = LidsAndLips.of(head, actor, dense_table_of(head))
    rows = torch.zeros(len(jaw), NUM_POSE + face.blink.shape[1]).double()
    rows[:, JAW], rows[:, NUM_POSE : NUM_POSE + expr.shape[1]] = jaw.double(), expr.double()
    return face.apertures(rows)[:, 2].numpy()


def test_reenact_takes_a_video(talk: Path, config: Path, tmp_path: Path) -> None:
    video = tmp_path / "driven.mp4"
    words = ("--load-config", config, "--motion", talk, "--output", video, "--run-name", "by-video")
    assert edit3dgs("reenact", *words) == 0
    assert video.is_file()
    from edit3dgs_ns.runs.trained_run import TrainedRun

    run = TrainedRun(config.parent.with_name(f"{config.parent.name}-by-video") / "config.yml")
    played = run.pipeline.model.head.motion()
    assert len(played) == FRAMES
    jaw = open_driver(talk, HEAD).recorded.motion.jaw_pose[:, 0]
    assert np.corrcoef(played.jaw_pose[:, 0].detach().cpu(), jaw)[0, 1] > 0.95


def test_a_video_that_shows_nobody_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], config: Path
) -> None:
    path = tmp_path / "wall.mp4"
    with VideoWriter(path, FPS) as video:
        for _ in range(12):
            video.add(np.full((64, 64, 3), 128, np.uint8))
    with pytest.raises(UserError, match=r"wall\.mp4: no face was found"):
        open_driver(path, HEAD)
    out = tmp_path / "out.mp4"
    assert edit3dgs("reenact", "--load-config", config, "--motion", path, "--output", out) == 2
    assert "no face was found" in capfd.readouterr().err and not out.exists()
