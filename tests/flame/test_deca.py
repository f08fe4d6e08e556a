"""Motions of DECA and EMOCA, in every shape that they are saved in, are the same motion."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edit3dgs_ns.capture.driver import read_driver
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.retarget import RetargetOptions, retarget
from tests.flame.helpers import random_assets

HEAD = dataclasses.replace(random_assets(num_shape=4, num_expr=6), name="flame")
FRAMES = 5
RNG = np.random.default_rng(0)
EXP = RNG.normal(size=(FRAMES, 3)).astype(np.float32)
POSE = (0.3 * RNG.normal(size=(FRAMES, 6))).astype(np.float32)
SHAPE = RNG.normal(size=(FRAMES, 2)).astype(np.float32)
TABLE = {"exp": EXP, "pose": POSE, "shape": SHAPE}


def frame(t: int, batch: bool = False) -> dict[str, np.ndarray]:
    return {name: values[t : t + 1] if batch else values[t] for name, values in TABLE.items()}


def save_codes(folder: Path, name: str, t: int) -> None:
    """As EMOCA does: a folder for each face of each frame."""
    (folder / name).mkdir(parents=True)
    for key, value in frame(t).items():
        np.save(folder / name / f"{key}.npy", value)
    np.save(folder / name / "detail.npy", np.zeros(128, np.float32))


def in_folders(place: Path) -> Path:
    for t in range(FRAMES):
        save_codes(place, f"{t + 1:06d}_000", t)
    return place


def in_one(suffix: str, content: object = TABLE) -> Callable[[Path], Path]:
    def write(place: Path) -> Path:
        place.mkdir()
        return save(place / f"take{suffix}", content)

    return write


def save(path: Path, content: object) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **content)  # type: ignore[arg-type]
    elif path.suffix == ".npy":
        np.save(path, content, allow_pickle=True)  # type: ignore[arg-type]
    else:
        path.write_bytes(pickle.dumps(content))
    return path


def frame_by_frame(suffix: str, batch: bool) -> Callable[[Path], Path]:
    def write(place: Path) -> Path:
        place.mkdir()
        for t in range(FRAMES):
            save(place / f"{t:05d}{suffix}", frame(t, batch))
        return place

    return write


CODES = {"expcode": EXP, "posecode": POSE, "shapecode": SHAPE, "lightcode": np.zeros((FRAMES, 9, 3))}


@pytest.mark.parametrize(
    "write",
    [
        in_folders, in_one(".npz"), in_one(".npy"), in_one(".pkl"), in_one(".pkl", [frame(t) for t in range(FRAMES)]),
        in_one(".npz", CODES), frame_by_frame(".npz", True), frame_by_frame(".npy", False), frame_by_frame(".pkl", True),
    ],
)  # fmt: skip
def test_every_form_is_the_same_motion(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    recorded = read_driver(write(tmp_path / "emoca"), HEAD).recorded
    motion = recorded.motion
    assert len(motion) == FRAMES and recorded.has_head_pose
    np.testing.assert_array_equal(motion.expr, np.pad(EXP, ((0, 0), (0, 3))))  # the head model has 6
    np.testing.assert_array_equal(motion.rotation, POSE[:, :3])
    np.testing.assert_array_equal(motion.jaw_pose, POSE[:, 3:])
    np.testing.assert_allclose(motion.shape, SHAPE.mean(axis=0), rtol=1e-6)
    assert not any(getattr(motion, name).any() for name in ("neck_pose", "eyes_pose", "translation"))
    assert "3 of the head model's 6 expression coefficients" in recorded.notes[0]


def test_an_avatar_plays_it(tmp_path: Path) -> None:
    actor = FlameMotion.zeros(2, 4, 6)
    recorded = read_driver(in_folders(tmp_path / "emoca"), HEAD).recorded
    played, _ = retarget(recorded, actor, HEAD, RetargetOptions(head_pose="relative"))
    np.testing.assert_array_equal(played.expr[:, :3], EXP)
    assert played.shape.shape == (4,) and (played.rotation != 0).any()


def test_frames_without_a_face_are_interpolated(tmp_path: Path) -> None:
    for number, t in (
        (10, 0),
        (20, 1),
        (50, 2),
        (60, 3),
    ):  # every tenth frame of a video; no face in 30 and 40
        save_codes(tmp_path / "emoca", f"{number:06d}_000", t)
    recorded = read_driver(tmp_path / "emoca", HEAD).recorded
    assert len(recorded.motion) == 6 and recorded.notes[1].startswith("2 frames without a face")
    torch.testing.assert_close(recorded.motion.expr[[0, 1, 4, 5], :3], torch.from_numpy(EXP[:4]))
    third = EXP[1] + (EXP[2] - EXP[1]) / 3
    torch.testing.assert_close(recorded.motion.expr[2, :3], torch.from_numpy(third))


def test_two_faces_are_refused(tmp_path: Path) -> None:
    folder = in_folders(tmp_path / "emoca")
    save_codes(folder, "000003_001", 2)
    with pytest.raises(ValueError, match="000003_001: a second face in frame 3"):
        read_driver(folder, HEAD)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pose": POSE[:, :3]}, r"'pose' has shape \(5, 3\), expected \(5, 6\)"),
        ({"pose": POSE[:2]}, r"'pose' has shape \(2, 6\), expected \(5, 6\)"),
        ({"exp": EXP * np.nan}, "'exp' is not an array of finite numbers"),
        ({"exp": EXP.astype(np.float64) + 1e39}, "'exp' is not an array of finite numbers"),
        ({"exp": np.zeros((5, 7))}, "7 expression coefficients; the head model has 6"),
        ({"exp": EXP[:0], "pose": POSE[:0], "shape": SHAPE[:1]}, "has no frames"),
        ({"shape": SHAPE[:0]}, "'shape' has no rows"),
        ({"exp": "text"}, "'exp' is not an array of finite numbers"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_what_does_not_fit_is_refused(tmp_path: Path, suffix: str, changes: dict, expected: str) -> None:
    path = save(tmp_path / f"take{suffix}", {**TABLE, **changes})
    with pytest.raises(ValueError, match=rf"take\{suffix}: .*{expected}"):
        read_driver(path, HEAD)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"pose": POSE}, "has no 'exp'; expected .*found pose"),
        ([1, 2], "expected a dictionary"),
        ([], "expected a dictionary"),
        ({**TABLE, "exp": torch.zeros(5, 3)}, r"refused to read this pickle.*numpy\(\)"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".pkl"])
def test_pickles_of_something_else_are_refused(
    tmp_path: Path, suffix: str, content: object, expected: str
) -> None:
    path = tmp_path / f"take{suffix}"
    if suffix == ".npy":
        boxed = np.empty((), dtype=object)
        boxed[()] = content
        np.save(path, boxed, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=rf"take\{suffix}: .*{expected}"):
        read_driver(path, HEAD)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pkl"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"take{suffix}", TABLE)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=rf"take\{suffix}: .*(not a readable|truncated)"):
        read_driver(path, HEAD)


def test_a_frame_s_file_has_one_row(tmp_path: Path) -> None:
    folder = frame_by_frame(".npz", True)(tmp_path / "deca")
    np.savez(folder / "00003.npz", **{name: values[:2] for name, values in TABLE.items()})
    with pytest.raises(ValueError, match=r"00003\.npz: has 2 rows, expected 1"):
        read_driver(folder, HEAD)


def test_the_open_head_cannot_play_it(tmp_path: Path) -> None:
    for path in (in_folders(tmp_path / "emoca"), in_one(".pkl")(tmp_path / "deca")):
        with pytest.raises(ValueError, match="was tracked with FLAME"):
            read_driver(path, load_assets(OPEN_HEAD_PATH))


def test_files_of_vhap_in_a_folder_are_still_vhap_s(tmp_path: Path) -> None:
    motion = FlameMotion.zeros(1, 4, 6)
    for t in range(3):
        motion.save(tmp_path / "flame_param" / f"{t:05d}.npz")
    assert len(read_driver(tmp_path, HEAD).recorded.motion) == 3
    assert len(read_driver(tmp_path / "flame_param", HEAD).recorded.motion) == 3
