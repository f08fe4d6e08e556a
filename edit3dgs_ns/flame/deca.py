"""Motions of DECA and EMOCA: trackers of FLAME 2020 that look at one image at a time.

| key | values of a frame | meaning |
|---|---|---|
| `exp` (or `expcode`) | 50 | the leading expression coefficients |
| `pose` (or `posecode`) | 6 | global rotation, then rotation of the jaw: axis-angle, radians |
| `shape` (or `shapecode`) | 100 | the leading shape coefficients; need not be there |

Read are an npz, npy (a pickled dictionary) or pkl with these keys, one row or one per frame; a pkl with a list of such
dictionaries; and folders of single frames: such files, or folders of `exp.npy`, `pose.npy`, `shape.npy` as EMOCA's `save_codes`
writes them (`000017_000` is frame 17, face 0). Neither tracks neck, eyes or a translation in metres: these stay zero.

Feng et al., "Learning an animatable detailed 3D face model from in-the-wild images" (DECA), 2021; Danecek et al., "EMOCA: Emotion
driven monocular face capture and animation", 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.arrays import finite_float32
from edit3dgs_ns.flame.known_motions import DECA_SUFFIXES, FRAME_NUMBER
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.safe_pickle import parse_pickle
from edit3dgs_ns.untrusted import read_npz

_NAMES = {"exp": ("exp", "expcode"), "pose": ("pose", "posecode"), "shape": ("shape", "shapecode")}
_POSE = 6


def has_deca_keys(keys: set[str]) -> bool:
    """Whether a table is a tracking of DECA or EMOCA."""
    return all(keys & set(_NAMES[name]) for name in ("exp", "pose"))


def read_deca_file(path: Path, num_expr: int) -> tuple[FlameMotion, tuple[str, ...]]:
    """A file as a motion, and notes for the user.

    Args:
        path: npz, npy or pkl.
        num_expr: expression coefficients of the head model; missing ones are zero.

    Raises:
        ValueError: it is damaged, lacks a key, or has more coefficients than the head model.
    """
    rows = _rows(path)
    motion = _motion(rows, path, num_expr)
    return motion, (_note(motion, rows[0]["exp"].shape[1]),)


def find_deca_frames(folder: Path) -> list[Path]:
    """The files or folders of single frames in a folder, by name; empty if there are none of DECA or EMOCA."""
    codes = sorted(p.parent for p in folder.glob("*/exp.npy") if (p.parent / "pose.npy").is_file())
    if codes:
        return codes
    for suffix in DECA_SUFFIXES:
        files = sorted(p for p in folder.glob(f"*{suffix}") if FRAME_NUMBER.search(p.stem))
        if files and (suffix != ".npz" or has_deca_keys(_npz_keys(files[0]))):
            return files
    return []


def read_deca_frames(paths: Sequence[Path], num_expr: int) -> tuple[FlameMotion, tuple[str, ...]]:
    """Single frames as a motion, and notes for the user. Frames that are missing between others are interpolated.

    Args:
        paths: from `find_deca_frames`.
        num_expr: as for `read_deca_file`.

    Raises:
        ValueError: as `read_deca_file`; or a file with several rows, or frames with several faces.
    """
    numbers = _frame_numbers(paths)
    rows = []
    for path in paths:
        (row, *more) = _rows(path)
        if more or len(row["exp"]) != 1:
            count = len(more) + 1 if more else len(row["exp"])
            raise UserError(f"{path}: has {count} rows, expected 1: it stands for one frame.")
        rows.append(row)
    motion = _motion(rows, paths[0], num_expr)
    notes = [_note(motion, rows[0]["exp"].shape[1])]
    if numbers is not None and len(motion) > 1:
        step = int(np.gcd.reduce(np.diff(numbers)))
        places = np.interp(range(numbers[0], numbers[-1] + 1, step), numbers, np.arange(len(numbers)))
        if len(places) > len(motion):
            notes.append(f"{len(places) - len(motion)} frames without a face are interpolated")
            at = torch.from_numpy(places / (len(motion) - 1)).to(motion.expr)
            motion = motion.with_pose(motion.interpolate(at))
    return motion, tuple(notes)


def _note(motion: FlameMotion, found: int) -> str:
    known = motion.expr.shape[1]
    return (
        f"DECA or EMOCA: rotation, jaw and {found} of the head model's {known} expression coefficients; they track neither neck, "
        "eyes nor translation"
    )


def _frame_numbers(paths: Sequence[Path]) -> list[int] | None:
    """The frames' numbers in ascending order; None where names have none."""
    found = [FRAME_NUMBER.search(path.stem) for path in paths]
    if not all(found):
        return None
    numbers = [int(match[1]) for match in found if match is not None]
    for before, after, path in zip(numbers, numbers[1:], paths[1:], strict=False):
        if after == before:
            raise UserError(
                f"{path}: a second face in frame {after}. Move the folders of all other people out of {path.parent}."
            )
        if after < before:
            raise UserError(
                f"{path}: frame {after} comes after frame {before} by name. Pad the numbers with zeros."
            )
    return numbers


# -- files ----------------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> list[dict[str, np.ndarray]]:
    """Tables with "exp" and "pose" (T, width), and perhaps "shape" (T, width)."""
    content = _content(path)
    tables = content if isinstance(content, list) else [content]
    if not tables or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"{path}: expected a dictionary with {_expected()}, or a list of one a frame.")
    return [_row(table, path) for table in tables]


def _expected() -> str:
    return "'exp' (50 values a frame) and 'pose' (6), as DECA and EMOCA have them"


def _row(table: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    row = {}
    for name, spellings in _NAMES.items():
        key = next((spelling for spelling in spellings if spelling in table), None)
        if key is None and name == "shape":
            continue
        if key is None:
            keys = ", ".join(sorted(map(str, table))) or "nothing"
            raise UserError(f"{path}: has no {name!r}; expected {_expected()}, found {keys}.")
        values = finite_float32(np.asarray(table[key]))
        if values is None or values.ndim not in (1, 2):
            raise UserError(f"{path}: {key!r} is not an array of finite numbers, one row a frame.")
        row[name] = np.atleast_2d(values)
    if "shape" in row and not len(row["shape"]):
        raise UserError(f"{path}: 'shape' has no rows, expected one, or one a frame.")
    frames = len(row["exp"])
    if row["pose"].shape != (frames, _POSE):
        raise UserError(f"{path}: 'pose' has shape {row['pose'].shape}, expected {(frames, _POSE)}.")
    return row


def _content(path: Path) -> Any:
    if path.is_dir():
        codes = {name: path / f"{name}.npy" for name in _NAMES}
        return {name: _read_npy(file) for name, file in codes.items() if file.is_file()}
    if path.suffix.lower() == ".npz":
        return read_npz(path, {key for names in _NAMES.values() for key in names})
    if path.suffix.lower() == ".npy":
        content = _read_npy(path)
        return content.item() if isinstance(content, np.ndarray) and content.shape == () else content
    return parse_pickle(
        path.read_bytes(), str(path), "Save the codes as NumPy arrays: tensor.detach().cpu().numpy()."
    )


def _read_npy(path: Path) -> Any:
    """An array; or, of Python objects, what the pickle in the file holds, read without running anything in it."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            _, _, dtype = read(file)
            if not dtype.hasobject:
                file.seek(0)
                return np.lib.format.read_array(file, allow_pickle=False)
            data = file.read()
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a readable npy ({error}).") from error
    return parse_pickle(data, str(path), "Save the codes as NumPy arrays: tensor.detach().cpu().numpy().")


def _npz_keys(path: Path) -> set[str]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return set(archive.files)
    except Exception:  # damaged: whoever reads it says so
        return set()


# -- parameters -----------------------------------------------------------------------------------------------------------


def _motion(rows: Sequence[Mapping[str, np.ndarray]], source: Path, num_expr: int) -> FlameMotion:
    exp, pose = (_joined(rows, name, source) for name in ("exp", "pose"))
    if exp.shape[1] > num_expr:
        raise UserError(
            f"{source}: {exp.shape[1]} expression coefficients; the head model has {num_expr}. Give the avatar's own FLAME file."
        )
    shaped = all("shape" in row for row in rows)
    shape = _joined(rows, "shape", source).mean(axis=0) if shaped else np.zeros(0, np.float32)
    motion = FlameMotion.zeros(len(exp), len(shape), num_expr)
    motion.shape[:] = torch.from_numpy(shape)
    motion.expr[:, : exp.shape[1]] = torch.from_numpy(exp)
    motion.rotation[:], motion.jaw_pose[:] = torch.from_numpy(pose[:, :3]), torch.from_numpy(pose[:, 3:])
    return motion


def _joined(
    rows: Sequence[Mapping[str, np.ndarray]], name: str, source: Path
) -> Float[np.ndarray, "T width"]:
    widths = sorted({row[name].shape[1] for row in rows})
    if len(widths) > 1:
        raise UserError(
            f"{source}: {name!r} has {widths[0]} values in some frames and {widths[-1]} in others."
        )
    return np.concatenate([row[name] for row in rows])
