"""A rendered video, tracked for real: landmarks, fit, capture, and what else a video can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.capture.check import check_capture
from edit3dgs_ns.errors import ExistingFileError, UserError
from edit3dgs_ns.evaluation.video import VideoWriter
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.synthetic.replay import Replay
from edit3dgs_ns.synthetic.settings import CaptureSettings
from edit3dgs_ns.tracking.detections import Detections, left_out_notes, whole_faces
from edit3dgs_ns.tracking.job import TrackingResult, track_video
from edit3dgs_ns.tracking.output import TrackingOptions
from edit3dgs_ns.tracking.video import VideoPart
from tests.command_line import edit3dgs

pytest.importorskip("mediapipe", reason="mediapipe is not installed: see edit3dgs doctor")

FRAMES, SIZE, WIDTH, FPS = 16, 192, 384, 10.0
HEAD = load_assets()
OPTIONS = TrackingOptions(size=128)


@pytest.fixture(scope="module")
def replay() -> Replay:
    return Replay(CaptureSettings(seed=3, width=SIZE, height=SIZE, cameras=1, frames=FRAMES, samples=2))


@pytest.fixture(scope="module")
def images(replay: Replay) -> list[np.ndarray]:
    sequence = next(iter(replay.motion))
    (camera,) = replay.cameras
    rendered = [replay.render(sequence, t, camera).rgb for t in range(FRAMES)]
    return [np.rint(255 * image).astype(np.uint8) for image in rendered]


@pytest.fixture(scope="module")
def video(images: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered frames with two black ones in between; the head is left of the middle."""
    frames = [*images[:6], *[0 * images[0]] * 2, *images[6:]]
    wide = [np.pad(frame, ((0, 0), (0, WIDTH - SIZE), (0, 0)), constant_values=255) for frame in frames]
    return write(tmp_path_factory.mktemp("video") / "me.mp4", wide)


def write(path: Path, frames: list[np.ndarray]) -> Path:
    with VideoWriter(path, FPS) as writer:
        for frame in frames:
            writer.add(frame)
    return path


@pytest.fixture(scope="module")
def result(video: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrackingResult, Path]:
    out = tmp_path_factory.mktemp("tracked") / "me"
    return track_video(video, out, HEAD, OPTIONS), out


def test_the_head_turns_as_the_true_one(result: tuple[TrackingResult, Path], replay: Replay) -> None:
    tracked, _ = result
    frames = next(iter(replay.motion.values()))
    true = Rotation.from_rotvec([f.rotation for f in frames]) * Rotation.from_rotvec(
        [f.neck_pose for f in frames]
    )
    motion = tracked.motion
    found = Rotation.from_rotvec(motion.rotation.numpy()) * Rotation.from_rotvec(motion.neck_pose.numpy())
    true_yaw, found_yaw = (r.as_euler("YXZ", degrees=True)[:, 0] for r in (true, found))
    assert np.abs((found_yaw - found_yaw.mean()) - (true_yaw - true_yaw.mean())).mean() < 2
    jaw = np.array([f.jaw_pose[0] for f in frames])
    assert np.corrcoef(motion.jaw_pose[:, 0].numpy(), jaw)[0, 1] > 0.9


def test_frames_without_a_face_are_left_out_and_counted(result: tuple[TrackingResult, Path]) -> None:
    tracked, _ = result
    assert tracked.frames == (*range(6), *range(8, FRAMES + 2))
    assert tracked.report["frames_without_face"] == [6, 7]
    assert any("2 of 18 frames show no face" in note for note in tracked.report["notes"])
    assert tracked.report["reprojection_percent"] < 2.5 and tracked.report["worst_percent"] < 8


def test_the_capture_is_one_that_training_reads(result: tuple[TrackingResult, Path]) -> None:
    _, out = result
    report = check_capture(out, thorough=True)
    assert not [problem for problem in report.problems if problem.status == "wrong"], report.problems
    frames = {
        s: json.loads((out / f"transforms_{s}.json").read_text())["frames"] for s in ("train", "val", "test")
    }
    assert [len(frames[split]) for split in ("train", "val", "test")] == [13, 0, 3]
    assert frames["train"][6]["timestep_index_original"] == 8
    mask = np.asarray(Image.open(out / "fg_masks" / "00003_00.png"))
    image = np.asarray(Image.open(out / "images" / "00003_00.png"))
    assert mask.shape == (128, 128) and image.shape == (128, 128, 3)
    mask, image = (
        mask[:88],
        image[:88],
    )  # above the shoulders: a body that ends in the air is beyond the segmentation
    white = image.min(axis=2) > 250  # the rendered background
    assert mask[white].mean() < 15 and mask[~white].mean() > 230


def test_training_sees_the_tracked_principal_point(result: tuple[TrackingResult, Path]) -> None:
    """The crop is off the frame's middle; what the camera was fitted with is what the data parser gives."""
    from edit3dgs_ns.capture.transforms import each_frame, read_transforms

    tracked, out = result
    path = out / "transforms_train.json"
    frame = next(each_frame(read_transforms(path), path))
    assert frame.principal_point() == pytest.approx((tracked.camera.K[0, 2], tracked.camera.K[1, 2]))
    (camera,) = Camera.from_transforms(path)
    np.testing.assert_allclose(camera.K, tracked.camera.K)
    crop = tracked.report["crop"]
    scale = crop["size"] / crop["side"]
    middle = [(side / 2 - crop[edge]) * scale for side, edge in ((WIDTH, "left"), (SIZE, "top"))]
    assert frame.principal_point() == pytest.approx(middle)
    assert abs(middle[0] - crop["size"] / 2) > 10, "the test would see the image's middle taken instead"


def test_going_on_gives_the_same(
    result: tuple[TrackingResult, Path], video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landmarks and images that are there are kept; the rest is made again."""
    tracked, out = result
    (out / "flame_param" / "00002.npz").unlink()
    (out / "tracking.mp4").unlink()
    monkeypatch.setattr("edit3dgs_ns.tracking.detections.FaceDetector", None)  # calling it would fail
    again = track_video(video, out, HEAD, OPTIONS)
    np.testing.assert_array_equal(again.motion.expr.numpy(), tracked.motion.expr.numpy())
    assert (out / "flame_param" / "00002.npz").is_file() and (out / "tracking.mp4").is_file()


def test_another_video_or_folder_is_not_written_over(
    result: tuple[TrackingResult, Path], video: Path, tmp_path: Path
) -> None:
    _, out = result
    with pytest.raises(ExistingFileError, match="another video or other options"):
        track_video(video, out, HEAD, TrackingOptions(size=96))
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ExistingFileError, match="is not empty"):
        track_video(video, tmp_path, HEAD, OPTIONS)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_the_command_says_how_it_went(
    result: tuple[TrackingResult, Path], video: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, out = result
    assert edit3dgs("track", video, out, "--size", 128) == 0
    printed = capfd.readouterr()
    assert "16 frames tracked" in printed.out and f"nersemble-data --data {out}" in printed.out
    assert "2 of 18 frames show no face" in printed.err
    assert "XNNPACK" not in printed.err and "W0000" not in printed.err, (
        "MediaPipe's notes stay off the screen"
    )


def test_a_video_without_a_face(tmp_path: Path, images: list[np.ndarray]) -> None:
    video = write(tmp_path / "wall.mp4", [np.full_like(images[0], 128)] * 12)
    with pytest.raises(UserError, match=r"wall\.mp4: no face was found in 12 frames"):
        track_video(video, tmp_path / "out", HEAD, OPTIONS)


@pytest.mark.parametrize(
    ("turns", "how", "command"),
    [
        (1, "lies on its side", "-vf transpose=1"),
        (2, "is upside down", "-vf hflip,vflip"),
        (3, "lies on its side", "-vf transpose=2"),
    ],
)
def test_a_turned_video_is_refused_with_what_turns_it(
    turns: int, how: str, command: str, images: list[np.ndarray], tmp_path: Path
) -> None:
    turned = write(tmp_path / "me.mp4", [np.ascontiguousarray(np.rot90(i, turns)) for i in images[:10]])
    with pytest.raises(UserError, match=f"the face {how} .*ffmpeg -i me.mp4 {command}"):
        track_video(turned, tmp_path / "out", HEAD, OPTIONS)
    assert not (tmp_path / "out").exists()


def test_faces_that_the_images_edge_cuts_off_are_left_out() -> None:
    landmarks = np.full((12, 478, 2), 50.0)
    landmarks[3:5, :200, 0] = -5.0  # two fifths are to the left of the image
    landmarks[5, :20, 1] = 101.0  # a chin that touches the edge
    landmarks[7] = 0.0
    found = np.arange(12) != 7
    kept = whole_faces(Detections(landmarks, found, 1), 100, 100)
    assert np.flatnonzero(~kept.found).tolist() == [3, 4, 7]
    assert np.flatnonzero(kept.cut_off).tolist() == [3, 4]
    no_face, cut_off = left_out_notes(kept)
    assert no_face.startswith("1 of 12 frames show no face")
    assert cut_off.startswith("In 2 of 12 frames the image's edge")


def test_a_cut_is_said_with_its_time(tmp_path: Path, images: list[np.ndarray]) -> None:
    far = np.full((SIZE, 3 * SIZE, 3), 255, np.uint8)
    left, right = far.copy(), far.copy()
    left[:, :SIZE], right[:, -SIZE:] = images[0], images[0]
    video = write(tmp_path / "cut.mp4", [left] * 10 + [right] * 8)
    with pytest.raises(UserError, match=r"cut\.mp4: is cut at 1\.0 s"):
        track_video(video, tmp_path / "out", HEAD, OPTIONS)
    assert (
        len(track_video(video, tmp_path / "one", HEAD, TrackingOptions(VideoPart(end=1.0), 96)).frames) == 10
    )


def test_of_two_faces_the_larger_is_followed_and_said(tmp_path: Path, images: list[np.ndarray]) -> None:
    wide = np.full((SIZE, 2 * SIZE, 3), 255, np.uint8)
    frames = []
    for image in images[:10]:
        frame = wide.copy()
        frame[:, :SIZE] = image
        small = np.asarray(Image.fromarray(images[0]).resize((SIZE * 2 // 3,) * 2))
        frame[: len(small), -len(small) :] = small
        frames.append(frame)
    tracked = track_video(write(tmp_path / "two.mp4", frames), tmp_path / "out", HEAD, OPTIONS)
    assert any("was the largest when a face was first found" in note for note in tracked.report["notes"])
    assert tracked.report["crop"]["left"] + tracked.report["crop"]["side"] / 2 < SIZE


def test_masks_of_the_users_own(tmp_path: Path, images: list[np.ndarray]) -> None:
    video, masks = write(tmp_path / "me.mp4", images[:10]), tmp_path / "masks"
    masks.mkdir()
    for number in range(10):
        own = np.zeros((SIZE, SIZE), np.uint8)
        own[:, : SIZE // 2] = 255
        Image.fromarray(own).save(masks / f"{number:03d}.png")
    track_video(video, tmp_path / "out", HEAD, TrackingOptions(size=128, masks=masks))
    written = np.asarray(Image.open(tmp_path / "out" / "fg_masks" / "00005_00.png"))
    assert written[:, :40].mean() > 200 and written[:, -40:].max() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TrackingOptions(size=5), "--size 5"),
        (TrackingOptions(focal=-1.0), "--focal -1"),
        (TrackingOptions(masks=Path("nowhere")), "--masks nowhere: no such folder"),
    ],
)
def test_options_that_cannot_be(options: TrackingOptions, message: str, video: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        track_video(video, tmp_path / "out", HEAD, options)
    assert not (tmp_path / "out").exists()


def test_mediapipes_notes_stay_off_the_screen(images: list[np.ndarray], tmp_path: Path) -> None:
    video = write(tmp_path / "me.mp4", images[:10])
    command = [
        sys.executable,
        "-m",
        "edit3dgs_ns",
        "track",
        str(video),
        str(tmp_path / "out"),
        "--size",
        "96",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for noise in ("XNNPACK", "W0000", "absl", "WARNING"):
        assert noise not in done.stderr + done.stdout
    assert "Finding the face" in done.stderr


def test_a_video_that_was_replaced_is_tracked_again(images: list[np.ndarray], tmp_path: Path) -> None:
    """The same name, another content: never the old landmarks in silence."""
    video, out = write(tmp_path / "me.mp4", images[:12]), tmp_path / "out"
    track_video(video, out, HEAD, OPTIONS)
    write(video, images[2:13])
    with pytest.raises(ExistingFileError, match="another video or other options"):
        track_video(video, out, HEAD, OPTIONS)
    again = track_video(video, out, HEAD, OPTIONS, overwrite=True)
    assert len(again.frames) == 11 and len(list((out / "images").glob("*.png"))) == 11
    assert again.report["reprojection_percent"] < 2.5


@pytest.mark.parametrize("name", ["file/out", "x" * 300])
def test_a_folder_that_cannot_be_made_is_said_before_detection(
    name: str,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("edit3dgs_ns.tracking.detections.FaceDetector", None)  # calling it would fail
    with pytest.raises(UserError, match=r"cannot be made"):
        track_video(video, tmp_path / name, HEAD, OPTIONS)
    assert edit3dgs("track", video, tmp_path / name) == 2
    assert "cannot be made" in capfd.readouterr().err


def test_what_cannot_be_tracked_replaces_nothing(images: list[np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "out"
    track_video(write(tmp_path / "me.mp4", images[:10]), out, HEAD, OPTIONS)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    wall = write(tmp_path / "wall.mp4", [np.full_like(images[0], 128)] * 12)
    with pytest.raises(UserError, match="no face was found"):
        track_video(wall, out, HEAD, OPTIONS, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(UserError, match="no face was found"):
        track_video(wall, tmp_path / "none", HEAD, OPTIONS)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", ['{"mine": 1}', "[]", "{", '{"settings": {}}'])
def test_a_tracking_json_of_somebody_else_is_not_ours(content: str, video: Path, tmp_path: Path) -> None:
    (tmp_path / "tracking.json").write_text(content)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.png").write_text("mine")
    with pytest.raises(ExistingFileError, match="holds no tracked video"):
        track_video(video, tmp_path, HEAD, OPTIONS, overwrite=True)
    assert (tmp_path / "images" / "holiday.png").read_text() == "mine"


def test_damaged_landmarks_are_found_again(images: list[np.ndarray], tmp_path: Path) -> None:
    video, out = write(tmp_path / "me.mp4", images[:10]), tmp_path / "out"
    first = track_video(video, out, HEAD, OPTIONS)
    (out / "landmarks.npz").write_bytes((out / "landmarks.npz").read_bytes()[:300])
    np.testing.assert_array_equal(track_video(video, out, HEAD, OPTIONS).motion.expr, first.motion.expr)
