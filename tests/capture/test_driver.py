"""A capture as a motion: its timesteps in order, the pictures of its front camera, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edit3dgs_ns.capture.driver import read_driver
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.motion import FlameMotion
from tests.tiny_capture import TinyCapture, write_tiny_capture

HEAD = load_assets(OPEN_HEAD_PATH)


@pytest.fixture(scope="module")
def union_capture(tmp_path_factory: pytest.TempPathFactory) -> TinyCapture:
    """Three sequences of two timesteps, from three cameras. Read only."""
    folder = tmp_path_factory.mktemp("driver")
    return write_tiny_capture(folder, size=32, cameras=3, timesteps=2, samples=1)


@pytest.fixture
def own_capture(union_capture: TinyCapture, tmp_path: Path) -> Path:
    """A copy of the combined set's folder, with its sequences beside it."""
    copy = tmp_path / "capture"
    shutil.copytree(union_capture.union.parent, copy)
    return copy / union_capture.union.name


def test_a_combined_capture_plays_all_of_its_timesteps_in_order(union_capture: TinyCapture) -> None:
    driver = read_driver(union_capture.union, HEAD)
    files = sorted(
        union_capture.root.glob("*/flame_param/*.npz"), key=lambda p: (_place(union_capture, p), p.name)
    )
    assert len(driver.recorded.motion) == len(files) == 3 * union_capture.timesteps
    torch.testing.assert_close(driver.recorded.motion.expr, FlameMotion.from_frames(files).expr)
    assert driver.name == union_capture.union.name
    # The front camera sees the training sequences in `val` and the last one in `test`.
    assert driver.images is not None
    front = f"_{union_capture.cameras // 2:02d}.png"
    assert all(image.name.endswith(front) for image in driver.images.images)


def _place(capture: TinyCapture, path: Path) -> int:
    """Of a file's sequence in the combined set."""
    frames = [
        frame
        for split in ("train", "val", "test")
        for frame in json.loads((capture.union / f"transforms_{split}.json").read_text())["frames"]
    ]
    name = path.parent.parent.name
    return min(f["timestep_index"] for f in frames if f["flame_param_path"].split("/")[1] == name)


def test_a_part_plays_the_timesteps_of_its_split(union_capture: TinyCapture) -> None:
    whole = read_driver(union_capture.union, HEAD).recorded.motion
    unseen = read_driver(union_capture.union, HEAD, "test").recorded.motion
    torch.testing.assert_close(unseen.expr, whole.expr[-union_capture.timesteps :])


def test_images_are_composited_over_white(union_capture: TinyCapture, own_capture: Path) -> None:
    for image in own_capture.parent.glob("*/images/*.png"):  # as if it had been taken before a green wall
        mask = Image.open(image.parents[1] / "fg_masks" / image.name).convert("L")
        green = Image.new("RGB", mask.size, (0, 200, 0))
        green.paste(Image.open(image), mask=mask.point(lambda value: 255 * (value > 0)))
        green.save(image)
    then = read_driver(union_capture.union, HEAD).images
    now = read_driver(own_capture, HEAD).images
    assert then is not None and now is not None
    picture = now[2]
    assert (picture[0, 0] == 255).all()
    difference = np.abs(picture.astype(int) - then[2].astype(int))
    assert (difference.max(axis=2) > 40).mean() < 0.01  # nothing of the wall is left


def test_other_folders_with_a_motion(tmp_path: Path) -> None:
    motion = FlameMotion.zeros(4, HEAD.shapedirs.shape[2], HEAD.exprdirs.shape[2])
    motion.save(tmp_path / "avatar" / "flame_param.npz")
    assert len(read_driver(tmp_path / "avatar", HEAD).recorded.motion) == 4
    assert read_driver(tmp_path / "avatar", HEAD).name == "avatar_flame_param"
    for frame in range(3):
        motion.slice(frame, frame + 1).save(tmp_path / "SEN-01" / "flame_param" / f"{frame:05d}.npz")
    assert len(read_driver(tmp_path / "SEN-01", HEAD).recorded.motion) == 3
    assert len(read_driver(tmp_path / "SEN-01" / "flame_param", HEAD).recorded.motion) == 3
    run = tmp_path / "vhap" / "2026-01-01_10-00-00"
    motion.slice(0, 1).save(run / "tracked_flame_params_0.npz")
    motion.slice(0, 2).save(run / "tracked_flame_params_10.npz")
    motion.slice(0, 3).save(run / "tracked_flame_params_9.npz")
    assert len(read_driver(tmp_path / "vhap", HEAD).recorded.motion) == 2  # the last epoch
    assert len(read_driver(run, HEAD).recorded.motion) == 2


def test_what_is_no_motion_is_refused(own_capture: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"--motion .*nowhere: no such file or folder\. Known motions"
    ):
        read_driver(tmp_path / "nowhere", HEAD)
    (own_capture.parent / "EMPTY").mkdir()
    with pytest.raises(FileNotFoundError, match="no motion in this folder"):
        read_driver(own_capture.parent / "EMPTY", HEAD)
    npz = next(own_capture.parent.glob("*/flame_param/*.npz"))
    with pytest.raises(ValueError, match=r"--motion-part test: .* is one motion without parts"):
        read_driver(npz, HEAD, "test")
    test = own_capture / "transforms_test.json"
    content = json.loads(test.read_text())
    test.write_text(json.dumps({**content, "frames": []}))
    with pytest.raises(ValueError, match="'test' lists no frames"):
        read_driver(test.parent, HEAD, "test")
    frames = [{k: v for k, v in frame.items() if k != "flame_param_path"} for frame in content["frames"]]
    test.write_text(json.dumps({**content, "frames": frames}))
    with pytest.raises(
        ValueError,
        match="2 of 2 timesteps have no 'flame_param",
    ):
        read_driver(test.parent, HEAD, "test")


def test_a_capture_tracked_before_transforms_had_a_rate_has_that_of_its_report(own_capture: Path) -> None:
    assert read_driver(own_capture, HEAD).recorded.fps is None
    (own_capture / "tracking.json").write_text(json.dumps({"fps": 29.97}))
    assert read_driver(own_capture, HEAD).recorded.fps == 29.97
    path = own_capture / "transforms_train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fps": 30}))
    assert read_driver(own_capture, HEAD).recorded.fps == 30
