"""Recorded motions, whatever program wrote them, as `FlameMotion`.

| file | written by |
|---|---|
| `flame_param.npz`, `flame_param/00000.npz` | GaussianAvatars, VHAP's export |
| `tracked_flame_params_*.npz` | VHAP's tracker, before its export |
| `flame2023_tracking_v2.npz` | the NeRSemble benchmark |
| `*.npz`, `*.npy`, `*.pkl` with `exp` and `pose`, or a folder of single frames | DECA, EMOCA (see `deca`) |
| `*.csv`, `*.json` | apps that record ARKit's 52 face coefficients (see `arkit`) |

Nothing in a file is ever executed: archives are read without pickle, pickles as data (`safe_pickle`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.flame.arkit import arkit_motion, read_arkit
from edit3dgs_ns.flame.arrays import finite_float32
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.deca import find_deca_frames, has_deca_keys, read_deca_file, read_deca_frames
from edit3dgs_ns.flame.known_motions import ARKIT_SUFFIXES, KNOWN_FORMATS, check_suffix
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.openness import FaceOpenness
from edit3dgs_ns.flame.rotations import axis_angle_to_matrix, euler_xyz_to_axis_angle
from edit3dgs_ns.untrusted import read_npz

_BENCHMARK_KEYS = ("shape", "expression", "rotation", "translation", "jaw", "neck", "eyes", "scale")


@dataclass(frozen=True)
class RecordedMotion:
    """Somebody's motion, and what is known about the recording."""

    motion: FlameMotion
    source: Path
    """The file or folder."""
    fps: float | None = None
    """Frames per second, where the file says it."""
    has_head_pose: bool = True
    """Whether rotation and translation are tracked, rather than zero."""
    scale: float = 1.0
    """Scale of the recording's world relative to the motion, which has the head's own size."""
    openness: FaceOpenness | None = None
    """Of eyes and mouth in every frame, where the motion was tracked in a video."""
    notes: tuple[str, ...] = ()
    """Messages for the user: how the file's coefficients were mapped, and which were left out."""


def read_motion_file(path: Path, head: FlameAssets) -> RecordedMotion:
    """Reads one file.

    Args:
        path: npz, npy, pkl, csv or json.
        head: that the motion is meant for: ARKit's coefficients are mapped to its named expressions, and the benchmark's
            rotation is about its origin, FLAME's about a joint.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, of no known kind, empty, holds values that are not finite, or cannot drive this head.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file. {KNOWN_FORMATS}")
    check_suffix(path)
    if path.suffix.lower() in ARKIT_SUFFIXES:
        recording = read_arkit(path)
        motion, notes = arkit_motion(recording, head)
        return RecordedMotion(motion, path, fps=recording.fps, has_head_pose=False, notes=notes)
    if path.suffix.lower() in (".npy", ".pkl"):
        return _read_deca(path, head)
    keys = _keys(path)
    if {"expression", "jaw"} <= keys:
        return _read_benchmark(path, head)
    if has_deca_keys(keys):
        return _read_deca(path, head)
    motion = FlameMotion.load(path)
    require_frames(motion, path)
    return RecordedMotion(motion, path)


def read_motion_folder(folder: Path, head: FlameAssets) -> RecordedMotion | None:
    """Reads a folder of single frames; None if it holds no motion.

    Raises:
        FileNotFoundError, ValueError: a file is damaged, or cannot drive this head.
    """
    frames = find_deca_frames(folder)
    if frames:
        _require_flame(folder, head)
        motion, notes = read_deca_frames(frames, head.exprdirs.shape[2])
        return RecordedMotion(motion, folder, notes=notes)
    frames = sorted(folder.glob("[0-9]*.npz")) or sorted(folder.glob("flame_param/[0-9]*.npz"))
    return RecordedMotion(FlameMotion.from_frames(frames), folder) if frames else None


def _read_deca(path: Path, head: FlameAssets) -> RecordedMotion:
    _require_flame(path, head)
    motion, notes = read_deca_file(path, head.exprdirs.shape[2])
    require_frames(motion, path)
    return RecordedMotion(motion, path, notes=notes)


def _require_flame(path: Path, head: FlameAssets) -> None:
    if head.name != "flame":
        raise UserError(
            f"{path} was tracked with FLAME, this avatar is bound to {head.source.name}: their expressions have nothing to do with "
            "each other. Drive it by a capture of the same head, or by ARKit coefficients."
        )


def require_frames(motion: FlameMotion, source: Path) -> None:
    """Raises a ValueError for a motion without frames."""
    if len(motion) == 0:
        raise UserError(
            f"{source}: has no frames (expr has shape {tuple(motion.expr.shape)}); expected at least one. Record or track it again."
        )


def _keys(path: Path) -> set[str]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return set(archive.files)
    except Exception as error:  # zipfile, zlib and numpy each raise their own for a damaged file
        raise UserError(f"{path}: not a readable npz of plain arrays ({error}). {KNOWN_FORMATS}") from error


def _read_benchmark(path: Path, head: FlameAssets) -> RecordedMotion:
    """The NeRSemble benchmark: a head of FLAME without root rotation, then turned about the origin, scaled and moved.

    `world = s R v + T`, R from intrinsic XYZ Euler angles. FLAME turns about its root joint J and moves then:
    `R (v - J) + J + t` is the same place in a world s times as small when `t = R J - J + T / s`.
    """
    table = _finite(path, _BENCHMARK_KEYS)
    if table["expression"].ndim != 2:
        raise UserError(
            f"{path}: 'expression' has shape {tuple(table['expression'].shape)}, expected (frames, 100)"
        )
    frames = len(table["expression"])
    _require_flame(path, head)
    for key, width in {"rotation": 3, "translation": 3, "jaw": 3, "neck": 3, "eyes": 6}.items():
        if table[key].shape != (frames, width):
            raise UserError(
                f"{path}: {key!r} has shape {tuple(table[key].shape)}, expected {(frames, width)}"
            )
    scale = float(table["scale"].reshape(-1)[0]) if table["scale"].numel() else 0.0
    if not scale > 0:
        raise UserError(f"{path}: 'scale' is {scale}, expected a positive number")
    shape, expr = table["shape"].reshape(-1), table["expression"]
    turn = euler_xyz_to_axis_angle(table["rotation"].double()).float()
    joint = _root_joint(path, head, shape, expr)
    motion = FlameMotion(
        shape=shape,
        static_offset=None,
        expr=expr,
        rotation=turn,
        neck_pose=table["neck"],
        jaw_pose=table["jaw"],
        eyes_pose=table["eyes"],
        translation=_rotated(turn, joint) - joint + table["translation"] / scale,
    )
    require_frames(motion, path)
    return RecordedMotion(motion, path, scale=scale)


def _finite(path: Path, keys: Sequence[str]) -> dict[str, Tensor]:
    """Arrays of finite numbers."""
    arrays, table = read_npz(path, keys), {}
    for key in keys:
        if key not in arrays:
            raise UserError(
                f"{path}: has no {key!r}; the benchmark's tracking files have {', '.join(_BENCHMARK_KEYS)}"
            )
        values = finite_float32(arrays[key])
        if values is None:
            raise UserError(f"{path}: {key!r} is not an array of finite numbers")
        table[key] = torch.from_numpy(values)
    return table


def _root_joint(
    path: Path, head: FlameAssets, shape: Float[Tensor, " S"], expr: Float[Tensor, "T E"]
) -> Float[Tensor, "T 3"]:
    """Rest position of this person's root joint; a little of the expression is in it, as in FLAME's own code."""
    known = head.shapedirs.shape[2], head.exprdirs.shape[2]
    if len(shape) > known[0] or expr.shape[1] > known[1]:
        raise UserError(
            f"{path}: {len(shape)} shape and {expr.shape[1]} expression coefficients; the head model {head.source} has {known[0]} "
            f"and {known[1]}. Give the avatar's own FLAME file (FLAME 2023 for the benchmark)."
        )
    row = torch.from_numpy(head.J_regressor[0])
    template = row @ torch.from_numpy(head.v_template)
    by_shape = torch.einsum("v,vcs->cs", row, torch.from_numpy(head.shapedirs[..., : len(shape)]))
    by_expr = torch.einsum("v,vce->ce", row, torch.from_numpy(head.exprdirs[..., : expr.shape[1]]))
    return template + by_shape @ shape + expr @ by_expr.T


def _rotated(axis_angle: Float[Tensor, "T 3"], points: Float[Tensor, "T 3"]) -> Float[Tensor, "T 3"]:
    return torch.einsum("tij,tj->ti", axis_angle_to_matrix(axis_angle), points)
