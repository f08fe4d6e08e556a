"""`nersemble-data` on captures as VHAP and `edit3dgs capture` write them, and on broken ones."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edit3dgs_ns.capture.check import check_capture
from edit3dgs_ns.capture.driver import read_driver
from edit3dgs_ns.capture.transforms import find_capture
from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.loading import load_assets
from tests.tiny_capture import SEQUENCES, UNION, TinyCapture


@pytest.fixture
def capture(tiny_capture: TinyCapture, tmp_path: Path) -> TinyCapture:
    """A copy that a test may damage."""
    root = tmp_path / "capture"
    shutil.copytree(tiny_capture.root, root)
    return TinyCapture(root, root / UNION, tiny_capture.cameras, tiny_capture.timesteps, tiny_capture.size)


def parse(data: Path, split: str = "train", **options: Any) -> Any:
    return NersembleDataParserConfig(data=data, **options).setup().get_dataparser_outputs(split)


def change(folder: Path, split: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / f"transforms_{split}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def change_frames(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    for split in ("train", "val", "test"):
        change(folder, split, lambda content: [edit(frame) for frame in content["frames"]])


def test_splits_times_and_metadata(tiny_capture: TinyCapture) -> None:
    train, val, test = (parse(tiny_capture.union, split) for split in ("train", "val", "test"))
    steps, cameras = tiny_capture.timesteps, tiny_capture.cameras
    total = steps * len(SEQUENCES)
    assert len(train.image_filenames) == 2 * steps * (cameras - 1)
    assert len(val.image_filenames) == 2 * steps
    assert len(test.image_filenames) == steps * cameras
    assert all(path.is_file() for out in (train, val, test) for path in out.image_filenames)
    # Times are places on the motion of all splits together: the unseen sequence is its last third.
    places = [out.cameras.times.flatten() * (total - 1) for out in (train, val, test)]
    for out, place in zip((train, val, test), places, strict=True):
        torch.testing.assert_close(place, out.metadata["timesteps"].float(), atol=1e-4, rtol=0)
    assert places[0].max().round() == 2 * steps - 1 and places[2].min().round() == 2 * steps
    assert len(train.metadata["flame_motion"]) == total
    # The motion is in the order of the timesteps: each row is that timestep's file.
    for split_outputs in (train, test):
        frames = json.loads(
            (tiny_capture.union / f"transforms_{split_outputs.metadata['split']}.json").read_text()
        )["frames"]
        frame, place = frames[-1], int(split_outputs.metadata["timesteps"][-1])
        stored = np.load(tiny_capture.union / frame["flame_param_path"])
        torch.testing.assert_close(
            split_outputs.metadata["flame_motion"].expr[place], torch.from_numpy(stored["expr"][0])
        )


def test_cameras_are_taken_as_they_are(tiny_capture: TinyCapture) -> None:
    out = parse(tiny_capture.union)
    frame = json.loads((tiny_capture.union / "transforms_train.json").read_text())["frames"][5]
    torch.testing.assert_close(
        out.cameras.camera_to_worlds[5], torch.tensor(frame["transform_matrix"])[:3].float()
    )
    assert float(out.cameras.fx[5]) == pytest.approx(frame["fl_x"])
    assert (int(out.cameras.width[5]), int(out.cameras.height[5])) == (tiny_capture.size, tiny_capture.size)
    assert out.dataparser_scale == 1.0
    torch.testing.assert_close(out.dataparser_transform, torch.eye(4)[:3])
    box = out.scene_box.aabb
    assert (box[0] < out.metadata["flame_motion"].translation.amin(0)).all() and (box[1] - box[0] < 1.0).all()


def test_the_projected_head_lands_on_the_mask(tiny_capture: TinyCapture) -> None:
    """Cameras, motion and images agree: the posed head projects into the foreground mask."""
    from PIL import Image

    from edit3dgs_ns.flame.loading import load_assets
    from edit3dgs_ns.flame.model import FlameModel

    out = parse(tiny_capture.union, "test")
    motion, model = out.metadata["flame_motion"], FlameModel.from_assets(load_assets())
    index = 6
    place = int(out.metadata["timesteps"][index])
    vertices = model.shaped(motion.shape, motion.static_offset).posed(motion.pose([place]))[0]
    c2w = out.cameras.camera_to_worlds[index]
    local = (vertices - c2w[:, 3]) @ c2w[:, :3]
    x = out.cameras.fx[index] * local[:, 0] / -local[:, 2] + out.cameras.cx[index]
    y = out.cameras.cy[index] - out.cameras.fy[index] * local[:, 1] / -local[:, 2]
    mask = np.asarray(Image.open(out.metadata["fg_mask_filenames"][index]))
    inside = mask[y.long().clamp(0, 47).numpy(), x.long().clamp(0, 47).numpy()] > 0
    assert inside.mean() > 0.97


@pytest.mark.parametrize(
    ("convention", "expected"), [("centre", (24.0, 24.0)), ("top", (20.0, 30.0)), ("bottom", (20.0, 18.0))]
)
def test_principal_point(capture: TinyCapture, convention: str, expected: tuple[float, float]) -> None:
    change_frames(capture.union, lambda frame: frame.update(cx=20.0, cy=30.0))
    cameras = parse(capture.union, cy=convention).cameras
    assert (float(cameras.cx[0]), float(cameras.cy[0])) == expected


def test_missing_optional_keys(capture: TinyCapture) -> None:
    """The least that a capture needs: path, pose, timestep; intrinsics shared at the top level, as an angle."""
    expected = parse(capture.union).cameras

    def strip(content: dict[str, Any]) -> None:
        angle = content["frames"][0]["camera_angle_x"]
        keep = ("file_path", "transform_matrix", "timestep_index", "flame_param_path")
        content["frames"] = [{k: v for k, v in frame.items() if k in keep} for frame in content["frames"]]
        content["camera_angle_x"] = angle
        content.pop("timestep_indices")

    for split in ("train", "val", "test"):
        change(capture.union, split, strip)
    out = parse(capture.union)
    torch.testing.assert_close(out.cameras.fx, expected.fx)
    torch.testing.assert_close(out.cameras.fy, expected.fx)
    torch.testing.assert_close(out.cameras.width, expected.width)
    assert out.metadata["fg_mask_filenames"] is None


def test_monocular_captures_have_an_empty_val(capture: TinyCapture) -> None:
    change(capture.union, "val", lambda content: content.update(frames=[]))
    out = parse(capture.union, "val")
    assert out.image_filenames == [] and len(out.cameras) == 0


def test_a_capture_without_tracking(capture: TinyCapture) -> None:
    change_frames(capture.union, lambda frame: frame.pop("flame_param_path"))
    out = parse(capture.union)
    assert out.metadata["flame_motion"] is None
    centre = out.scene_box.aabb.mean(dim=0)
    torch.testing.assert_close(centre, torch.tensor([0.0, -0.02, -0.03]), atol=1e-3, rtol=0)


def test_one_timestep(tiny_capture: TinyCapture) -> None:
    """For static methods: the timestep's cameras, the front one held out, whichever split the timestep is in."""
    last = tiny_capture.timesteps * len(SEQUENCES) - 1
    for timestep in (1, last):
        train, val, test = (parse(tiny_capture.union, s, timestep=timestep) for s in ("train", "val", "test"))
        assert len(train.image_filenames) == tiny_capture.cameras - 1
        assert len(val.image_filenames) == len(test.image_filenames) == 1
        assert set(train.image_filenames).isdisjoint(val.image_filenames)
        assert len({float(t) for out in (train, val) for t in out.cameras.times}) == 1
        assert val.metadata["camera_indices"].tolist() == [tiny_capture.cameras // 2]
    with pytest.raises(ValueError, match=r"--timestep 99.*it has 0, 1, 2"):
        parse(tiny_capture.union, timestep=99)


def test_masks_on_request(tiny_capture: TinyCapture) -> None:
    assert parse(tiny_capture.union).mask_filenames is None
    masks = parse(tiny_capture.union, use_masks=True).mask_filenames
    assert masks is not None and all(path.parent.name == "fg_masks" for path in masks)


def test_finding_the_capture(capture: TinyCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_capture(capture.union) == capture.union
    assert find_capture(capture.root) == capture.union  # the single combined set
    assert find_capture(capture.root / SEQUENCES[0]) == capture.root / SEQUENCES[0]
    monkeypatch.chdir(capture.root)
    assert find_capture(Path(UNION)) == capture.union
    shutil.copytree(capture.union, capture.root / "UNION10_other")
    with pytest.raises(ValueError, match=r"several captures.*UNION10_other.*UNION10_test"):
        find_capture(capture.root)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_capture(capture.root / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"transforms_train\.json"):
        find_capture(capture.root / SEQUENCES[0] / "images")


@pytest.mark.parametrize(
    "path",
    [
        "../../outside.png", "/etc/passwd", "images/../../../outside.png",
        "..\\..\\outside.png", "..\\seq/..\\../outside.png", "C:\\outside.png", "\\outside.png",
    ],
)  # fmt: skip
def test_paths_stay_in_the_capture(capture: TinyCapture, path: str) -> None:
    change(capture.union, "train", lambda content: content["frames"][2].update(file_path=path))
    with pytest.raises(ValueError, match=r"transforms_train\.json: frame 2 .*leaves the capture"):
        parse(capture.union)


def test_paths_of_windows_are_found(capture: TinyCapture) -> None:
    expected = parse(capture.union)

    def edit(frame: dict[str, Any]) -> None:
        for key in ("file_path", "fg_mask_path", "flame_param_path"):
            frame[key] = frame[key].replace("/", "\\")

    change_frames(capture.union, edit)
    found = parse(capture.union)
    assert found.image_filenames == expected.image_filenames
    assert torch.equal(found.metadata["flame_motion"].expr, expected.metadata["flame_motion"].expr)


def test_a_byte_order_mark_is_no_error(capture: TinyCapture) -> None:
    expected = parse(capture.union).image_filenames
    for path in capture.union.glob("transforms_*.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert parse(capture.union).image_filenames == expected


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("timesteps", ["all", "one"])
def test_a_file_of_one_timestep_has_one_row(capture: TinyCapture, rows: int, timesteps: str) -> None:
    """Otherwise every later timestep would be posed by another's parameters."""
    path = capture.root / SEQUENCES[0] / "flame_param" / "00001.npz"
    table = dict(np.load(path))
    per_row = [name for name in table if name not in ("shape", "static_offset")]
    np.savez(path, **{**table, **{name: np.repeat(table[name], rows, axis=0) for name in per_row}})
    if timesteps == "one":

        def only_this_one(content: dict[str, Any]) -> None:
            content["frames"] = [f for f in content["frames"] if f["timestep_index"] == 1]

        for split in ("train", "val", "test"):
            change(capture.union, split, only_this_one)
    with pytest.raises(ValueError, match=rf"00001\.npz: has {rows} rows, expected 1"):
        parse(capture.union)
    found = [p.what for p in check_capture(capture.union).problems]
    assert any(f"has {rows} rows" in what for what in found), found
    with pytest.raises(ValueError, match=rf"00001\.npz: has {rows} rows"):
        read_driver(capture.union, load_assets(OPEN_HEAD_PATH))


def test_one_file_with_all_timesteps(capture: TinyCapture) -> None:
    """As `edit3dgs import` writes it; or with the one file named frame by frame: timestep_index is the row."""
    expected = parse(capture.union).metadata["flame_motion"]
    expected.save(capture.union / "motion.npz")
    change_frames(capture.union, lambda frame: frame.update(flame_param_path="motion.npz"))
    by_frame = parse(capture.union).metadata["flame_motion"]
    change_frames(capture.union, lambda frame: frame.pop("flame_param_path"))
    for split in ("train", "val", "test"):
        change(capture.union, split, lambda content: content.update(flame_param_path="motion.npz"))
    at_the_top = parse(capture.union).metadata["flame_motion"]
    assert torch.equal(by_frame.expr, expected.expr) and torch.equal(at_the_top.expr, expected.expr)
    assert check_capture(capture.union).problems == []
    expected.slice(0, 5).save(capture.union / "motion.npz")
    with pytest.raises(ValueError, match=r"timestep_index 5, 6, 7, 8, .*timesteps 0 to 4"):
        parse(capture.union)
    (problem,) = check_capture(capture.union).problems
    assert "has 5 rows; the transforms name timestep_index 5, 6, 7, 8" in problem.what
    with pytest.raises(ValueError, match=r"timestep_index 5; .*timesteps 0 to 4"):
        read_driver(capture.union, load_assets(OPEN_HEAD_PATH))


BEYOND_FLOAT32 = 1e39


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("transform_matrix", [[BEYOND_FLOAT32] * 4] * 4, "4 x 4 finite numbers"),
        ("fl_x", BEYOND_FLOAT32, "expected positive pixels"),
        ("fl_y", 1e-60, "expected positive pixels"),
        ("cx", BEYOND_FLOAT32, "cx 1e[+]39; expected a finite number"),
        ("cy", -math.inf, "cy -inf; expected a finite number"),
        ("cy", math.nan, "cy nan; expected a finite number"),
        ("w", math.inf, "the w inf; expected a whole number"),
        ("h", 10**30, "the h 1.*; expected a whole number"),
        ("timestep_index", math.nan, "timestep_index nan; expected a whole number"),
        ("fl_x", 10**400, ""),
        ("camera_index", 2**63, "camera_index 9223372036854775808; expected a whole number"),
    ],
)
def test_numbers_are_finite_in_single_precision(
    capture: TinyCapture, key: str, value: Any, expected: str
) -> None:
    change(capture.union, "train", lambda content: content["frames"][3].update({key: value}))
    with pytest.raises(UserError, match=f"frame 3 .*{expected}"):
        parse(capture.union)


def test_a_field_of_view_of_zero_is_refused(capture: TinyCapture) -> None:
    def edit(content: dict[str, Any]) -> None:
        for key in ("fl_x", "fl_y"):
            content["frames"][3].pop(key)
        content["frames"][3]["camera_angle_x"] = 0

    change(capture.union, "train", edit)
    with pytest.raises(UserError, match=r"frame 3 .*expected positive pixels"):
        parse(capture.union)


def _break(name: str, capture: TinyCapture) -> str:
    """Damages the capture; returns what the error must say."""
    union = capture.union
    if name == "json missing":
        (union / "transforms_test.json").unlink()
        return r"transforms_test\.json is missing"
    if name == "json truncated":
        path = union / "transforms_val.json"
        path.write_text(path.read_text()[:-20])
        return r"transforms_val\.json is not valid JSON"
    if name == "json a list":
        (union / "transforms_train.json").write_text("[]")
        return "expected an object"
    if name == "no frames":
        change(union, "train", lambda content: content.update(frames=[]))
        return "lists no frames"
    if name == "frames missing":
        change(union, "train", lambda content: content.pop("frames"))
        return "expected a list under 'frames'"
    if name == "frame a number":
        change(union, "train", lambda content: content["frames"].__setitem__(1, 5))
        return "frame 1 is a int"
    if name == "key missing":
        change(union, "train", lambda content: content["frames"][3].pop("timestep_index"))
        return r"frame 3 has no key 'timestep_index'"
    if name == "bad matrix":
        change(union, "train", lambda content: content["frames"][0].update(transform_matrix=[[1, 2], [3, 4]]))
        return "transform_matrix"
    if name == "NaN matrix":
        change(
            union,
            "train",
            lambda content: content["frames"][0]["transform_matrix"][0].__setitem__(3, math.nan),
        )
        return "finite"
    if name == "no focal length":
        lengths = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y")
        change(union, "train", lambda content: [content["frames"][0].pop(k) for k in lengths])
        return "fl_x"
    if name == "image missing":
        os.remove(next((capture.root / SEQUENCES[0] / "images").glob("00001_00.png")))
        return r"1 of 18 images.*00001_00\.png"
    if name == "parameters missing":
        os.remove(capture.root / SEQUENCES[2] / "flame_param" / "00001.npz")
        return r"FLAME parameters.*00001\.npz"
    if name == "parameters of another shape":
        path = capture.root / SEQUENCES[1] / "flame_param" / "00000.npz"
        np.savez(path, **{**np.load(path), "jaw_pose": np.zeros((1, 4), np.float32)})
        return r"00000\.npz.*jaw_pose"
    if name == "parameters no npz":
        (capture.root / SEQUENCES[1] / "flame_param" / "00000.npz").write_bytes(b"nonsense")
        return r"00000\.npz"
    if name == "one index, two files":
        change(union, "test", lambda content: content["frames"][0].update(timestep_index=0))
        return "timestep_index 0 stands for both"
    assert name == "some parameters unnamed"
    change(union, "test", lambda content: [f.pop("flame_param_path") for f in content["frames"]])
    return "no 'flame_param_path' for timestep_index 6, 7, 8"


@pytest.mark.parametrize(
    "damage",
    [
        "json missing", "json truncated", "json a list", "no frames", "frames missing", "frame a number", "key missing",
        "bad matrix", "NaN matrix", "no focal length", "image missing", "parameters missing", "parameters of another shape",
        "parameters no npz", "one index, two files", "some parameters unnamed",
    ],
)  # fmt: skip
def test_errors_name_what_is_wrong(capture: TinyCapture, damage: str) -> None:
    expected = _break(damage, capture)
    with pytest.raises((ValueError, FileNotFoundError), match=expected):
        parse(capture.union)
