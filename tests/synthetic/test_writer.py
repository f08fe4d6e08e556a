"""The files of a capture: layout, splits, repeatability, and what happens to a folder that is not empty."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edit3dgs_ns.capture.check import check_capture
from edit3dgs_ns.commands import main as cli
from edit3dgs_ns.flame import FlameMotion
from edit3dgs_ns.synthetic.canonical import LABELS, canonical_head
from edit3dgs_ns.synthetic.replay import render_edited
from edit3dgs_ns.synthetic.settings import read_settings
from edit3dgs_ns.synthetic.writer import write_capture

TINY = {"seed": 3, "width": 48, "height": 56, "cameras": 3, "frames": 2, "samples": 2}
FRAME_KEYS = {
    "timestep_index",
    "camera_index",
    "camera_id",
    "cx",
    "cy",
    "fl_x",
    "fl_y",
    "h",
    "w",
    "camera_angle_x",
    "camera_angle_y",
    "transform_matrix",
    "file_path",
    "fg_mask_path",
    "flame_param_path",
}


def _union(capture: Path) -> Path:
    (union,) = capture.glob("UNION10_*")
    return union


def _split(folder: Path, name: str) -> dict:
    return json.loads((folder / f"transforms_{name}.json").read_text())


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_frames_have_the_keys_of_the_format(written_capture: Path) -> None:
    single_extra = {"timestep_index_original", "timestep_id"}
    for folder in (p.parent for p in written_capture.glob("*/transforms_train.json")):
        extra = set() if folder.name.startswith("UNION10_") else single_extra
        for name in ("train", "val", "test"):
            content = _split(folder, name)
            assert {"cx", "cy", "fl_x", "fl_y", "h", "w", "timestep_indices", "camera_indices"} <= set(
                content
            )
            for frame in content["frames"]:
                assert set(frame) == FRAME_KEYS | extra
                for key in ("file_path", "fg_mask_path", "flame_param_path"):
                    assert (folder / frame[key]).resolve().is_file()


def test_splits_of_the_combined_set(written_capture: Path) -> None:
    union = _union(written_capture)
    train, val, test = (_split(union, name)["frames"] for name in ("train", "val", "test"))
    assert len(train) == 3 * 2 * 2 and len(val) == 3 * 2 and len(test) == 2 * 3
    assert {f["camera_index"] for f in val} == {8}
    assert 8 not in {f["camera_index"] for f in train}
    assert {f["camera_index"] for f in test} == {0, 8, 15}
    train_steps, test_steps = ({f["timestep_index"] for f in frames} for frames in (train, test))
    assert {f["timestep_index"] for f in val} == train_steps
    assert train_steps | test_steps == set(range(8)) and not train_steps & test_steps
    sequences = {f["file_path"].split("/")[1] for f in test}
    assert sequences == {"003_EMO-4"}
    assert all(f["file_path"].startswith("../003_") for f in train)


def test_the_only_camera_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the command prints can be trained on: val is empty, train and test differ in time."""
    from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
    from edit3dgs_ns.training.datamanager import AvatarDatamanagerConfig

    monkeypatch.delenv("FLAME_MODEL_PATH", raising=False)
    words = ["capture", str(tmp_path / "mono"), "--cameras", "1", "--frames", "5", "--resolution", "24", "24"]
    assert cli.run([*words, "--samples", "1", "--workers", "1"]) == 0
    data = Path(shlex.split(capfd.readouterr().out)[-1])
    assert data.is_dir()
    for folder, train, test in ((data, 15, 5), (data.parent / "000_EMO-1", 4, 1)):
        counts = {name: len(_split(folder, name)["frames"]) for name in ("train", "val", "test")}
        assert counts == {"train": train, "val": 0, "test": test}
        assert check_capture(folder, thorough=True).problems == []
    manager = AvatarDatamanagerConfig(dataparser=NersembleDataParserConfig(data=data)).setup(device="cpu")
    _, batch = manager.next_train(0)
    assert batch["image"].shape == (1, 24, 24, 3)
    assert (len(manager.train_dataset), len(manager.eval_dataset), len(manager.held_out("test"))) == (
        15,
        0,
        5,
    )


def test_the_doctor_finds_no_problems(written_capture: Path) -> None:
    assert check_capture(_union(written_capture), thorough=True).problems == []


def test_one_timestep_index_is_one_parameter_file(written_capture: Path) -> None:
    union = _union(written_capture)
    files: dict[int, set[str]] = {}
    for name in ("train", "val", "test"):
        for frame in _split(union, name)["frames"]:
            files.setdefault(frame["timestep_index"], set()).add(frame["flame_param_path"])
    assert all(len(paths) == 1 for paths in files.values())


def test_parameters_have_the_head_models_own_sizes(written_capture: Path) -> None:
    assets = canonical_head().assets
    path = written_capture / "003_EMO-1" / "flame_param" / "00001.npz"
    with np.load(path, allow_pickle=False) as table:
        shapes = {key: table[key].shape for key in table.files}
    assert shapes == {
        "translation": (1, 3),
        "rotation": (1, 3),
        "neck_pose": (1, 3),
        "jaw_pose": (1, 3),
        "eyes_pose": (1, 6),
        "shape": (assets.shapedirs.shape[2],),
        "expr": (1, assets.exprdirs.shape[2]),
        "static_offset": (1, assets.num_vertices, 3),
    }
    assert len(FlameMotion.load(path)) == 1
    assert FlameMotion.load(written_capture / "003_EMO-1" / "canonical_flame_param.npz").jaw_pose[0, 0] > 0


def test_pictures_fit_their_masks_and_labels(written_capture: Path) -> None:
    folder = written_capture / "003_SEN-01"
    for path in sorted((folder / "images").iterdir()):
        image = np.asarray(Image.open(path))
        mask = np.asarray(Image.open(folder / "fg_masks" / path.name))
        labels = np.asarray(Image.open(folder / "labels" / path.name))
        assert image.shape == (56, 48, 3) and mask.shape == labels.shape == (56, 48)
        assert (image[mask == 0] == 255).all()
        assert ((labels > 0) == (mask >= 128)).mean() > 0.97
    assert json.loads((folder / "labels.json").read_text()) == LABELS


def test_the_same_command_writes_the_same_bytes(written_capture: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write_capture(again, **TINY, workers=1)
    assert _bytes(again) == _bytes(written_capture)


def test_worker_processes_write_the_same_bytes(written_capture: Path, tmp_path: Path, monkeypatch) -> None:
    from edit3dgs_ns.synthetic import writer

    monkeypatch.setattr(writer, "SMALL_JOB", 0)
    again = tmp_path / "again"
    write_capture(again, **TINY, workers=2)
    assert _bytes(again) == _bytes(written_capture)


def test_a_broken_off_capture_goes_on_and_keeps_what_is_there(written_capture: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(written_capture, copy)
    lost = copy / "003_EMO-1" / "images" / "00001_08.png"
    kept = copy / "003_EMO-1" / "images" / "00000_08.png"
    lost.unlink()
    kept.write_bytes(b"kept")
    write_capture(copy, **TINY, workers=1)
    assert lost.read_bytes() == (written_capture / "003_EMO-1" / "images" / "00001_08.png").read_bytes()
    assert kept.read_bytes() == b"kept"


def test_other_settings_need_overwrite(written_capture: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(written_capture, copy)
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_capture(copy, **{**TINY, "frames": 1}, workers=1)
    write_capture(copy, **{**TINY, "frames": 1}, workers=1, overwrite=True)
    assert not (copy / "003_EMO-1" / "images" / "00001_08.png").exists()
    assert (copy / "notes.txt").read_text() == "mine"
    assert read_settings(copy).frames == 1


def test_a_foreign_folder_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="not empty"):
            write_capture(tmp_path, **TINY, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cameras", 0),
        ("cameras", 17),
        ("frames", 0),
        ("width", 4),
        ("samples", 0),
        ("seed", -1),
        ("workers", 0),
    ],
)
def test_bad_options_fail_before_anything_is_written(tmp_path: Path, option: str, value: int) -> None:
    out = tmp_path / "data"
    with pytest.raises(ValueError, match=option):
        write_capture(out, **{**TINY, option: value})
    assert not out.exists()


def test_true_pictures_of_a_capture_folder(written_capture: Path) -> None:
    path = written_capture / "003_EXP-5" / "images" / "00000_08.png"
    image = np.asarray(Image.open(path)) / 255.0
    np.testing.assert_allclose(render_edited(path, None), image, atol=0.5 / 255 + 1e-6)
    assert np.abs(render_edited(path, "green_skin") - image).mean() > 0.02
    with pytest.raises(ValueError, match="older"):
        render_edited(path, "purple_hat")
    with pytest.raises(FileNotFoundError, match=r"capture\.json"):
        render_edited("/nowhere/a/images/00000_08.png", "older")


def test_a_flame_path_in_the_environment_does_not_matter(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FLAME_MODEL_PATH", str(tmp_path / "generic_model.pkl"))
    canonical_head.cache_clear()
    assert canonical_head().assets.name == "open-head"
