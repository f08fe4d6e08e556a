"""`edit3dgs reenact`, `orbit` and `interpolate`, `ns-render` and `ns-eval`: who moves how, seen from where, and what is refused.

The avatar is made of random Gaussians by `edit3dgs import` on the tiny capture: nothing here needs a training.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from edit3dgs_ns.commands import main as cli
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.rendering.trajectories import (
    between,
    capture_cameras,
    head_centre,
    read_camera_path,
    turntable,
)
from edit3dgs_ns.runs.derive import MARKER
from edit3dgs_ns.runs.trained_run import TrainedRun, pose_matrices
from edit3dgs_ns.training.pipeline import AvatarPipeline
from tests.coloured_avatar import HEAD
from tests.command_line import edit3dgs
from tests.tiny_capture import TinyCapture


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ARKit recording of five frames: the mouth opens."""
    path = tmp_path_factory.mktemp("take") / "take.json"
    path.write_text(json.dumps({"fps": 30, "frames": [{"jawOpen": 0.25 * k} for k in range(5)]}))
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


# -- reenact --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def derived(config: Path, recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that plays the recording, and beside it (`video.mp4`) its video."""
    video = tmp_path_factory.mktemp("video") / "video.mp4"
    assert edit3dgs("reenact", "--load-config", config, "--motion", recording, "--output", video) == 0
    folder = config.parent.with_name(f"{config.parent.name}-take")
    shutil.copyfile(video, folder / "video.mp4")
    return folder


def test_the_video_shows_the_actor_move_as_the_driver(derived: Path, run: TrainedRun) -> None:
    frames = frames_of(derived / "video.mp4")
    assert len(frames) == 5 and frames[0].shape == (48, 48, 3)
    with av.open(str(derived / "video.mp4")) as video:
        assert video.streams.video[0].average_rate == 30
    motion = run.pipeline.model.head.motion()
    expected = FlameMotion.zeros(5, len(motion.shape), motion.expr.shape[1])
    expected.jaw_pose[:, 0] = 0.34 * 0.25 * torch.arange(5)
    played = TrainedRun(derived / "config.yml").pipeline.model.head.motion()
    torch.testing.assert_close(played.expr, expected.expr)
    torch.testing.assert_close(played.jaw_pose, expected.jaw_pose)
    torch.testing.assert_close(played.shape, motion.shape)
    # Between frames only the mouth moves.
    change = np.abs(frames[4].astype(int) - frames[0]).max(axis=2) > 40
    rows = np.flatnonzero(change.any(axis=1))
    assert change.any() and rows.min() > 48 // 2


def test_the_derived_run_works_in_ns_render_and_ns_viewer(
    derived: Path, run: TrainedRun, tmp_path: Path
) -> None:
    """A camera path with times as images and as a video, a split, and what ns-viewer loads."""
    from nerfstudio.scripts.render import DatasetRender, RenderCameraPath
    from nerfstudio.utils.eval_utils import eval_setup

    _, pipeline, _, _ = eval_setup(derived / "config.yml", test_mode="test")
    front = run.split("val").cameras[0:1]
    for time in (0.0, 1.0):
        front.times = torch.tensor([[time]])
        shown = pipeline.model.get_outputs_for_camera(front)["rgb"].detach().numpy()
        assert np.abs(shown * 255 - frames_of(derived / "video.mp4")[round(4 * time)]).mean() < 6

    path = write_path(tmp_path / "path.json", run, [0.0, 0.5, 1.0])
    RenderCameraPath(
        load_config=derived / "config.yml", camera_path_filename=path, output_path=tmp_path / "shots.mp4",
        output_format="images", image_format="png",
    ).main()  # fmt: skip
    shots = [np.asarray(Image.open(p).convert("RGB")) for p in sorted((tmp_path / "shots").glob("*.png"))]
    assert len(shots) == 3 and (np.abs(shots[2].astype(int) - shots[0]).max(axis=2) > 40).any()

    RenderCameraPath(
        load_config=derived / "config.yml", camera_path_filename=path, output_path=tmp_path / "shots.mp4",
        output_format="video",
    ).main()  # fmt: skip
    assert len(frames_of(tmp_path / "shots.mp4")) == 3

    DatasetRender(
        load_config=derived / "config.yml", output_path=tmp_path / "set", split="val", rendered_output_names=["rgb"],
        image_format="png",
    ).main()  # fmt: skip
    images = sorted((tmp_path / "set" / "val").glob("**/*.png"))
    assert len(images) == len(run.split("val"))


def test_ns_render_refuses_a_camera_path_without_times(config: Path, run: TrainedRun, tmp_path: Path) -> None:
    from nerfstudio.scripts.render import RenderCameraPath

    path = write_path(tmp_path / "path.json", run, [0.0, None, 1.0])
    with pytest.raises(ValueError, match='not every camera of this path has a "render_time"'):
        RenderCameraPath(
            load_config=config,
            camera_path_filename=path,
            output_path=tmp_path / "out" / "v.mp4",
            output_format="video",
        ).main()
    assert not list(tmp_path.glob("out/*"))


def test_a_run_that_plays_is_neither_evaluated_nor_edited(derived: Path) -> None:
    from nerfstudio.scripts.eval import ComputePSNR

    from edit3dgs_ns.training.load_avatar import load_avatar

    with pytest.raises(ValueError, match=r"plays .*take\.json: no captured image shows it"):
        ComputePSNR(load_config=derived / "config.yml", output_path=derived / "eval.json").main()
    with pytest.raises(ValueError, match=r"--pipeline.avatar .* plays .*take\.json"):
        load_avatar(None, derived)  # type: ignore[arg-type]


def test_the_same_name_is_replaced_only_where_we_made_it(
    config: Path, derived: Path, recording: Path, tmp_path: Path
) -> None:
    again = ("reenact", "--load-config", config, "--motion", recording, "--output", tmp_path / "v.mp4")
    assert edit3dgs(*again, "--run-name", "twice") == 0
    folder = config.parent.with_name(f"{config.parent.name}-twice")
    assert edit3dgs(*again, "--run-name", "twice", "--smooth", 1) == cli.USER_ERROR_EXIT_CODE
    assert "smooth" in (text := (folder / MARKER).read_text()) and json.loads(text)["smooth"] == 0
    assert edit3dgs(*again, "--run-name", "twice", "--smooth", 1, "--overwrite") == 0
    assert json.loads((folder / MARKER).read_text())["smooth"] == 1
    (folder / MARKER).unlink()
    assert edit3dgs(*again, "--run-name", "twice", "--overwrite") == cli.USER_ERROR_EXIT_CODE
    assert (folder / "config.yml").is_file()
    assert not [p for p in folder.parent.iterdir() if p.name.startswith(".")]


def test_a_capture_drives_with_its_images_beside(
    config: Path, tiny_capture: TinyCapture, tmp_path: Path
) -> None:
    """Its own unseen sequence with the head's movement: the renders are those of the capture's times."""
    video = tmp_path / "v.mp4"
    arguments = (
        "--motion",
        tiny_capture.union,
        "--motion-part",
        "test",
        "--head-pose",
        "absolute",
        "--output",
        video,
    )
    assert edit3dgs("reenact", "--load-config", config, *arguments) == 0
    run = TrainedRun(config)
    frames, test = frames_of(video), run.split("test")
    assert len(frames) == tiny_capture.timesteps and frames[0].shape[1] == 96
    header = frames[0].shape[0] - 48
    assert header > 0 and (frames[0][:header] < 128).any()
    front, last = run.split("val").cameras[0:1], run.pipeline.model.head.num_timesteps - 1
    timesteps = sorted(set(test.timesteps.tolist()))
    rendered, captured = [], []
    for timestep in timesteps:
        front.times = torch.tensor([[timestep / last]])
        rendered.append(run.colours(front)[0] * 255)
        shown = [i for i in range(len(test)) if test.timesteps[i] == timestep]
        captured.append(next(i for i in shown if test.dataset.image_filenames[i].name.endswith("_02.png")))
    for number, frame in enumerate(frames):
        driver, avatar = frame[header:, :48], frame[header:, 48:]
        assert int(np.argmin([difference(avatar, image) for image in rendered])) == number
        assert difference(avatar, rendered[number]) < 4
        assert int(np.argmin([difference(driver, test.image(i) * 255) for i in captured])) == number


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of brightness; videos have colours at half the resolution."""
    return float(np.abs((a.astype(float) - b) @ [0.299, 0.587, 0.114]).mean())


def test_all_cameras_in_a_grid_and_another_pace(
    config: Path, run: TrainedRun, recording: Path, tmp_path: Path
) -> None:
    video = tmp_path / "v.mp4"
    options = ("--cameras", "capture", "--fps", 60, "--speed", 2, "--scale", 0.5, "--run-name", "grid")
    arguments = ("--motion", recording, "--output", video, "--beside", config, *options)
    assert edit3dgs("reenact", "--load-config", config, *arguments) == 0
    frames = frames_of(video)
    assert len(frames) == 5  # as many a second and twice as fast: every frame of 30 a second
    # Four cameras of half the size, and another avatar (here the same) beside it, under their names.
    assert len(capture_cameras(run)) == 4 and frames[0].shape[1] == 2 * 48
    left, right = frames[3][-48:, :48], frames[3][-48:, 48:]
    assert difference(left, right) < 3 and (frames[3][:-48] < 128).any()


# -- camera paths ---------------------------------------------------------------------------------------------------------


def write_path(path: Path, run: TrainedRun, times: list[float | None], **changes: Any) -> Path:
    """As ns-viewer saves it."""
    pose = pose_matrices(run.split("val").cameras[0:1])[0]
    entries = [
        {"camera_to_world": pose.flatten().tolist(), "fov": 24.0, "aspect": 1, "render_time": time}
        for time in times
    ]
    for entry in entries:
        if entry["render_time"] is None:
            del entry["render_time"]
    content = {
        "camera_type": "perspective",
        "render_height": 32,
        "render_width": 40,
        "seconds": 0.5,
        "fps": 24,
    }
    path.write_text(json.dumps({**content, "camera_path": entries, **changes}))
    return path


def test_a_camera_path_says_which_moment_it_sees(
    config: Path, run: TrainedRun, recording: Path, tmp_path: Path
) -> None:
    path = write_path(tmp_path / "path.json", run, [1.0, 0.0, 0.25])
    assert read_camera_path(path).times.tolist() == [1.0, 0.0, 0.25]
    video = tmp_path / "v.mp4"
    arguments = ("--motion", recording, "--cameras", path, "--output", video, "--run-name", "path")
    assert edit3dgs("reenact", "--load-config", config, *arguments) == 0
    frames = [frame.astype(int) for frame in frames_of(video)]
    assert len(frames) == 3 and frames[0].shape == (32, 40, 3)
    with av.open(str(video)) as opened:
        assert opened.streams.video[0].average_rate == 6  # three frames in half a second
    assert np.abs(frames[0] - frames[1]).max() > np.abs(frames[2] - frames[1]).max() > 0


@pytest.mark.parametrize(
    ("times", "changes", "message"),
    [
        ([0.0, None, None], {}, '2 of 3 cameras have no "render_time"'),
        ([0.0, 1.5], {}, "camera 1 has the render_time 1.5"),
        ([], {}, "the camera path is empty"),
        ([0.0], {"camera_type": "equirectangular"}, "has equirectangular cameras"),
        ([0.0], {"camera_path": 3}, "no camera path of Nerfstudio"),
        ([0.0], {"camera_path": [{"render_time": 0}]}, "no camera path of Nerfstudio"),
    ],
)
def test_camera_paths_that_cannot_be_filmed(run: TrainedRun, tmp_path: Path, times, changes, message) -> None:
    path = write_path(tmp_path / "path.json", run, times, **changes)
    with pytest.raises(ValueError, match=message) as error:
        read_camera_path(path)
    assert "path.json" in str(error.value)


# -- what is refused before anything is rendered or written ---------------------------------------------------------------


def _zero_frames(folder: Path) -> Path:
    FlameMotion.zeros(0, HEAD.shapedirs.shape[2], HEAD.exprdirs.shape[2]).save(folder / "empty.npz")
    return folder / "empty.npz"


def _nans(folder: Path) -> Path:
    motion = FlameMotion.zeros(3, HEAD.shapedirs.shape[2], HEAD.exprdirs.shape[2])
    motion.jaw_pose[1] = torch.nan
    motion.save(folder / "nan.npz")
    return folder / "nan.npz"


def _flame(folder: Path) -> Path:
    FlameMotion.zeros(3, 300, 100).save(folder / "flame_param.npz")
    return folder / "flame_param.npz"


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (_zero_frames, (), "empty.npz: has no frames"),
        (_nans, (), "the first is frame 1"),
        (_flame, (), "100 expression coefficients, this head has 52"),
        (None, ("--motion", "nowhere.csv"), "nowhere.csv: no such file"),
        (None, ("--cameras", "nowhere.json"), "nowhere.json: no such file. Expected front, sway, capture"),
        (None, ("--output", "video.gif"), "video.gif: expected the name of an mp4 file"),
        (None, ("--fps", "0"), "--fps 0.0: expected a positive number"),
        (None, ("--speed", "-1"), "--speed -1.0: expected a positive number"),
        (None, ("--scale", "0"), "--scale 0.0: expected a positive number"),
        (None, ("--head-pose", "relative"), "does not say how the head moves"),
        (None, ("--run-name", "../../elsewhere"), "without '/'"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    config: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make, options, message
) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    motion = recording if make is None else make(inputs)
    arguments = {
        "--load-config": config,
        "--motion": motion,
        "--output": tmp_path / "video.mp4",
        "--run-name": "bad",
    }
    arguments |= dict(zip(options[::2], options[1::2], strict=True))
    words = [word for pair in arguments.items() for word in pair]
    assert edit3dgs("reenact", *words) == cli.USER_ERROR_EXIT_CODE
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["inputs"]
    assert not config.parent.with_name(f"{config.parent.name}-bad").exists()


# -- the other videos -----------------------------------------------------------------------------------------------------


def test_orbit_shows_the_head_from_all_sides(config: Path, tmp_path: Path) -> None:
    video = tmp_path / "orbit.mp4"
    options = ("--seconds", 1, "--fps", 8, "--time", 0, "--degrees", 360)
    assert edit3dgs("orbit", "--load-config", config, "--output", video, *options) == 0
    frames = [frame.astype(int) for frame in frames_of(video)]
    assert len(frames) == 8
    # Ears and nose: from the side the head is as deep as it is, from the front as wide; the back shows other faces.
    covered = [(frame.min(axis=2) < 250).any(axis=0).sum() for frame in frames]
    assert all(count > 10 for count in covered)
    assert np.abs(frames[4] - frames[0]).mean() > 5
    assert edit3dgs("orbit", "--load-config", config, "--degrees", 400) == cli.USER_ERROR_EXIT_CODE


def test_a_turntable_goes_as_far_as_the_cameras_stand(run: TrainedRun) -> None:
    """The tiny capture's stand from -0.7 to 0.7 radians; the front one of four is no. 2, at 0.7 / 3, and held out."""
    poses = pose_matrices(turntable(run, np.zeros(100)).cameras)
    offsets = poses[:, :3, 3] - head_centre(run)
    azimuth = np.arctan2(offsets[:, 0], offsets[:, 2])
    front = 0.7 / 3
    assert azimuth[0] == pytest.approx(front, abs=0.02)
    assert azimuth.max() == pytest.approx(0.7, abs=0.02)  # the nearer end
    assert azimuth.min() == pytest.approx(front - (0.7 - front), abs=0.02)


def test_interpolation_goes_through_places_and_times(config: Path, run: TrainedRun, tmp_path: Path) -> None:
    cameras = run.split("test").cameras[2:6]
    trajectory = between(cameras, steps=5)
    assert cameras.times is not None and len(trajectory) == 15
    assert trajectory.times[0] == cameras.times[0] and trajectory.times[-1] == cameras.times[-1]
    for pair in range(3):
        part = slice(5 * pair, 5 * pair + 5)
        ends = cameras.times[pair : pair + 2, 0].numpy()
        np.testing.assert_allclose(trajectory.times[part], np.linspace(*ends, 5), atol=1e-6)
        poses = pose_matrices(trajectory.cameras[part])
        np.testing.assert_allclose(poses[[0, -1]], pose_matrices(cameras)[pair : pair + 2], atol=1e-5)
    video = tmp_path / "v.mp4"
    assert edit3dgs("interpolate", "--load-config", config, "--output", video, "--steps", 3) == 0
    assert len(frames_of(video)) == 3 * (len(run.split("val")) - 1)


# -- ns-eval and ns-render on splits --------------------------------------------------------------------------------------


def test_ns_eval_tells_novel_views_from_reenactment(config: Path, run: TrainedRun, tmp_path: Path) -> None:
    from nerfstudio.scripts.eval import ComputePSNR

    assert isinstance(run.pipeline, AvatarPipeline)
    ComputePSNR(
        load_config=config, output_path=tmp_path / "eval.json", render_output_path=tmp_path / "out"
    ).main()
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    for task, split in (("novel_view", "val"), ("self_reenactment", "test")):
        images = run.split(split)
        assert results[f"{task}_images"] == len(images)
        values = []
        for index in range(len(images)):
            rendered = run.render(images.cameras[index : index + 1]).rgb
            values.append(-10 * np.log10(((rendered - images.image(index)) ** 2).mean()))
        assert results[f"{task}_psnr"] == pytest.approx(np.mean(values), abs=0.02)
        assert 0 < results[f"{task}_ssim"] < 1
        assert len(list((tmp_path / "out").glob(f"{task}_img_*.png"))) == len(images)
    assert results["psnr"] == results["self_reenactment_psnr"]  # what Nerfstudio reports: the split `test`


def test_captures_without_a_held_out_camera(
    config: Path, tiny_capture: TinyCapture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As monocular exports: rendering the empty split says so before it renders, and the rest is evaluated."""
    from nerfstudio.scripts.eval import ComputePSNR
    from nerfstudio.scripts.render import DatasetRender

    capture = tmp_path / "capture"
    shutil.copytree(tiny_capture.union.parent, capture)
    val = capture / tiny_capture.union.name / "transforms_val.json"
    frames = json.loads(val.read_text())["frames"]
    val.write_text(json.dumps({"frames": []}))
    train = val.with_name("transforms_train.json")
    train.write_text(json.dumps({"frames": json.loads(train.read_text())["frames"] + frames}))
    shutil.copytree(config.parents[2], tmp_path / "runs" / config.parents[2].name)
    (copy,) = (tmp_path / "runs").glob(f"*/*/{config.parent.name}/config.yml")
    content = yaml.load(copy.read_text(), Loader=yaml.Loader)
    content.output_dir, content.pipeline.datamanager.dataparser.data = tmp_path / "runs", val.parent
    copy.write_text(yaml.dump(content))

    with pytest.raises(ValueError, match="the split 'val' has no images, so there is nothing to render"):
        DatasetRender(load_config=copy, output_path=tmp_path / "out", split="val").main()
    assert not (tmp_path / "out").exists()
    video = tmp_path / "v.mp4"
    words = ("interpolate", "--load-config", copy, "--output", video, "--steps", 2)
    assert edit3dgs(*words, "--split", "val") == cli.USER_ERROR_EXIT_CODE
    assert "0 cameras" in capsys.readouterr().err and not video.exists()
    assert edit3dgs(*words) == 0
    assert "from training image to training image (--split train)" in capsys.readouterr().out
    assert len(frames_of(video)) == 2 * (len(json.loads(train.read_text())["frames"]) - 1)
    ComputePSNR(load_config=copy, output_path=tmp_path / "eval.json").main()
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert "self_reenactment_psnr" in results and not any(name.startswith("novel_view") for name in results)
