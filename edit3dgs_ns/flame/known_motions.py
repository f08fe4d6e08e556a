"""Which files and folders are motions, by their names alone: commands ask before they load PyTorch."""

from __future__ import annotations

import re
from pathlib import Path

from edit3dgs_ns.errors import MissingFileError, UserError

KNOWN_FORMATS = (
    "Known motions: a video (mp4, mov, gif, ...) or a folder of its frames; a capture's folder; flame_param.npz "
    "(GaussianAvatars, VHAP); VHAP's tracked_flame_params_*.npz; the NeRSemble benchmark's flame2023_tracking_v2.npz; an npz, "
    "npy or pkl of DECA or EMOCA ('exp', 'pose'), or a folder of their single frames; a CSV or JSON file of ARKit coefficients."
)
"""List of the formats, for messages."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Of frames of a video."""
ARKIT_SUFFIXES = (".csv", ".json")
DECA_SUFFIXES = (".npz", ".npy", ".pkl")
"""Of files that hold a motion; npz are those of VHAP, GaussianAvatars and the benchmark as well."""
TRACKED = re.compile(r"tracked_flame_params(?:_(\d+))?\.npz")
"""VHAP's tracker, before its export."""
AVATAR_MOTION = "flame_param.npz"
FRAME_NUMBER = re.compile(r"(\d+)(?:_(\d+))?$")
"""The number of a frame, and of a face in it, at the end of a name."""
MOST_FRAMES = 100_000
"""Of a video that plays a motion: more than an hour at 25 frames per second."""
_IN_FOLDERS = (
    "transforms_*.json",
    "*/transforms_train.json",
    AVATAR_MOTION,
    "tracked_flame_params*.npz",
    "*/tracked_flame_params*.npz",
    "flame_param/[0-9]*.npz",
    "*/exp.npy",
)


def check_motion_name(path: Path, option: str = "--motion") -> None:
    """Raises a ValueError or FileNotFoundError for a path that cannot be a motion; a video is none here.

    Args:
        path: a file or folder.
        option: what gave it, for the message.
    """
    if not path.exists():
        raise MissingFileError(f"{option} {path}: no such file or folder. {KNOWN_FORMATS}")
    if path.is_file():
        check_suffix(path, option)
    elif not holds_motion(path):
        raise MissingFileError(f"{option} {path}: no motion in this folder. {KNOWN_FORMATS}")


def holds_motion(folder: Path) -> bool:
    """Whether a folder is a capture, or has files of motions in it; images alone are none."""
    return any(next(folder.glob(pattern), None) for pattern in _IN_FOLDERS) or _has_frames(folder)


def check_suffix(path: Path, option: str = "") -> None:
    """Raises a ValueError for a file whose ending is of no known kind."""
    if path.suffix.lower() not in ARKIT_SUFFIXES + DECA_SUFFIXES:
        kind = path.suffix or "a file without an ending"
        raise UserError(f"{option} {path}: {kind} is no known kind of motion. {KNOWN_FORMATS}".lstrip())


def _has_frames(folder: Path) -> bool:
    """Whether files of single frames of DECA, EMOCA or VHAP are in a folder."""
    return any(p.suffix in DECA_SUFFIXES and FRAME_NUMBER.search(p.stem) for p in folder.iterdir())
