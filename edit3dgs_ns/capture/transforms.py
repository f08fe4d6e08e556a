"""Reading the transforms files of a capture, as VHAP exports them: the image, mask and head parameters of each camera.

Layout (one folder per sequence, and combined `UNION...` folders that hold only the three JSON files)::

    <capture>/<sequence>/images/{t:05d}_{cam:02d}.png  fg_masks/{t:05d}_{cam:02d}.png  flame_param/{t:05d}.npz
    <capture>/<sequence>/transforms_{train,val,test}.json
    <capture>/UNION10_.../transforms_{train,val,test}.json      paths inside start with ../<sequence>/

A capture that `edit3dgs import` made of an avatar names one npz with all timesteps at the top level of its transforms files
("flame_param_path"); timestep_index is the row in it.

Nothing but the JSON files is opened here, so that tens of thousands of frames take about a second.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edit3dgs_ns.capture.images import read_header
from edit3dgs_ns.errors import ExistingFileError, MissingFileError, UserError
from edit3dgs_ns.untrusted import parse_json

SPLITS = ("train", "val", "test")
_MOST = 2**31 - 1
"""Numbers of timesteps, cameras and pixels fit into 32 bits."""
# Of float32, the precision that cameras are used in. Compared without NumPy: there may be 60,000 frames.
_LARGEST, _SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)
_DRIVE = re.compile("[A-Za-z]:")
"""How an absolute path of Windows begins."""


CyConvention = Literal["auto", "centre", "top", "bottom"]
"""From which edge of an image cy counts (`FrameEntry.principal_point`)."""


@dataclass(frozen=True)
class FrameEntry:
    """One image of the capture, with every path absolute and every optional key resolved."""

    image: Path
    mask: Path | None
    flame: Path | None
    timestep_index: int
    camera_index: int
    c2w: np.ndarray
    """(4, 4) float64, camera-to-world, OpenGL axes, metres."""
    fx: float
    fy: float
    cx: float | None
    """As the file has it: pixels from the left edge; None if it has none."""
    cy: float | None
    """As the file has it: pixels from the top or from the bottom edge."""
    width: int
    height: int
    cy_from: Literal["top", "bottom"] | None = None
    """The edge, where the file says it (`edit3dgs track` does; VHAP does not)."""
    flame_of_all: bool = False
    """`flame` is named at the top level of the transforms file: it has a row for every timestep."""

    def counted_from(self, convention: CyConvention) -> FrameEntry:
        """The frame whose principal point is by default where a convention puts it; see `principal_point`."""
        if convention == "auto":
            return self
        if convention == "centre" or self.cx is None or self.cy is None:
            return replace(self, cx=None, cy=None, cy_from=None)
        return replace(self, cy_from=convention)

    def principal_point(self, convention: CyConvention = "auto") -> tuple[float, float]:
        """Pixels from the left and the top edge.

        Args:
            convention: from which edge cy counts; "centre" ignores cx and cy, as GaussianAvatars does; "auto" takes the edge that
                the file names, else the centre.
        """
        edge = (self.cy_from or "centre") if convention == "auto" else convention
        if edge == "centre":
            return self.width / 2, self.height / 2
        assert self.cx is not None and self.cy is not None
        return self.cx, self.cy if edge == "top" else self.height - self.cy


def shares_one_motion_file(frames: Iterable[FrameEntry]) -> bool:
    """Whether one file holds the head parameters of all timesteps (timestep_index is the row), instead of one file each."""
    files, timesteps = set(), set()
    for frame in frames:
        if frame.flame_of_all:
            return True
        files.add(frame.flame)
        timesteps.add(frame.timestep_index)
    return len(files) == 1 and None not in files and len(timesteps) > 1


def find_capture(data: Path, option: str = "--data") -> Path:
    """The folder with the three transforms files: `data` itself, or the single combined set in it.

    Args:
        data: a capture, or its parent.
        option: the flag that gave `data`, for messages.

    Raises:
        FileNotFoundError: `data` does not exist, or nothing in it is a capture.
        ValueError: several folders in `data` qualify; the message lists them.
    """
    data = Path(os.path.abspath(data.expanduser()))
    if not data.is_dir():
        raise MissingFileError(
            f"{option} {data}: no such folder. Expected a capture (a folder with transforms_train.json)."
        )
    if (data / "transforms_train.json").is_file():
        return data
    inside = sorted(p.parent for p in data.glob("*/transforms_train.json"))
    unions = [p for p in inside if p.name.upper().startswith("UNION")]
    choices = unions or inside
    if len(choices) == 1:
        return choices[0]
    if not choices:
        raise MissingFileError(
            f"{option} {data}: neither it nor a folder in it holds transforms_train.json. Expected a capture as VHAP "
            "exports it, or one made by `edit3dgs capture`."
        )
    raise UserError(
        f"{option} {data}: several captures in it; name one of {', '.join(str(p) for p in choices)}."
    )


def transforms_path(folder: Path, split: str) -> Path:
    """Path of the transforms file of a split."""
    return folder / f"transforms_{split}.json"


def check_output(out: Path) -> None:
    """Raises a FileExistsError for a folder that a mended capture cannot be written to."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExistingFileError(f"--repair {out} is there already. Name a new folder.")


def read_transforms(path: Path) -> dict[str, Any]:
    """The content of a transforms file; that it has a list of frames is checked, the frames are not.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or something else.
    """
    if not path.is_file():
        raise MissingFileError(
            f"{path} is missing. VHAP and `edit3dgs capture` write one for train, val and test (a split may list "
            "no frames)."
        )
    try:
        # "sig": some editors, and PowerShell, begin a file with a byte order mark.
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(
            f"{path} is not valid JSON: {error}. It may be truncated: export the capture again."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object with a 'frames' list, found a {type(content).__name__}.")
    if not isinstance(content.get("frames"), list):
        raise UserError(
            f"{path}: expected a list under 'frames', found {type(content.get('frames')).__name__}."
        )
    return content


def each_frame(content: dict[str, Any], source: Path) -> Iterator[FrameEntry | UserError]:
    """The frames of a transforms file in its order; where one is wrong, the error that says so.

    Args:
        content: from `read_transforms`.
        source: the file, for messages and because paths start from its folder.
    """
    shared = {key: value for key, value in content.items() if key != "frames"}
    for number, entry in enumerate(content["frames"]):
        if not isinstance(entry, dict):
            kind = type(entry).__name__
            yield UserError(f"{source}: frame {number} is a {kind}, expected an object with file_path etc.")
            continue
        try:
            frame = _frame({**shared, **entry}, source, flame_of_all="flame_param_path" not in entry)
            yield frame
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            reason = f"has no key {error}" if isinstance(error, KeyError) else str(error)
            yield UserError(f"{source}: frame {number} {reason}")


def readable_frames(folder: Path) -> list[FrameEntry]:
    """The frames of all splits of a capture, without those that are wrong."""
    frames: list[FrameEntry] = []
    for split in SPLITS:
        path = transforms_path(folder, split)
        frames += [f for f in each_frame(read_transforms(path), path) if isinstance(f, FrameEntry)]
    return frames


def _frame(keys: dict[str, Any], source: Path, flame_of_all: bool) -> FrameEntry:
    image = _path(keys, "file_path", source)
    if image is None:
        raise KeyError("file_path")
    c2w = np.asarray(keys["transform_matrix"], dtype=np.float64)
    if c2w.shape != (4, 4) or not np.abs(c2w).max() <= _LARGEST:
        raise UserError(f"has a transform_matrix of shape {c2w.shape}; expected 4 x 4 finite numbers.")
    width, height = _image_size(keys, image)
    fx, fy = _focal_lengths(keys, width, height)
    flame = _path(keys, "flame_param_path", source)
    return FrameEntry(
        image=image,
        mask=_path(keys, "fg_mask_path", source),
        flame=flame,
        timestep_index=_whole_number(keys, "timestep_index", least=0),
        camera_index=_whole_number(keys, "camera_index") if "camera_index" in keys else 0,
        c2w=c2w,
        fx=fx,
        fy=fy,
        cx=_coordinate(keys, "cx"),
        cy=_coordinate(keys, "cy"),
        width=width,
        height=height,
        cy_from=_edge(keys),
        flame_of_all=flame_of_all and flame is not None,
    )


def _whole_number(keys: dict[str, Any], key: str, least: int = -_MOST, most: int = _MOST) -> int:
    value = float(keys[key])
    if not least <= value <= most:  # NaN is not either
        raise UserError(f"has the {key} {keys[key]}; expected a whole number from {least} to {most}.")
    return int(value)


def _coordinate(keys: dict[str, Any], key: str) -> float | None:
    if keys.get(key) is None:
        return None
    value = float(keys[key])
    if not abs(value) <= _LARGEST:
        raise UserError(f"has the {key} {value}; expected a finite number of pixels.")
    return value


def _edge(keys: dict[str, Any]) -> Literal["top", "bottom"] | None:
    edge = keys.get("cy_from")
    if edge not in (None, "top", "bottom"):
        raise UserError(f"has the cy_from {edge!r}; expected 'top' or 'bottom'.")
    if edge and (keys.get("cx") is None or keys.get("cy") is None):
        raise UserError(f"has cy_from {edge!r}, but no cx and cy.")
    return edge


def _path(keys: dict[str, Any], key: str, source: Path) -> Path | None:
    """The file that a frame names: it may go up to the capture (the parent of the transforms' folder) and no further."""
    relative = keys.get(key)
    if not relative:
        return None
    if not isinstance(relative, str):
        raise TypeError(f"has a path that is no text: {relative!r}.")
    # Text, not pathlib: five times as fast, and there may be 60,000 of them.
    folder = os.path.dirname(source)
    capture = os.path.dirname(folder)
    # Windows' separator, as in ..\seq\images\00000_00.png. Before the check below, or ..\..\x would pass it.
    portable = relative.replace("\\", "/")
    path = os.path.normpath(os.path.join(folder, portable))
    if _DRIVE.match(portable) or not path.startswith(os.path.join(capture, "")):
        raise UserError(
            f"has the path {relative!r}, which leaves the capture {capture}; only files inside it are read."
        )
    return Path(path)


def _image_size(keys: dict[str, Any], image: Path) -> tuple[int, int]:
    if "w" in keys and "h" in keys:
        width, height = (_whole_number(keys, key) for key in ("w", "h"))
        if width < 1 or height < 1:
            raise UserError(f"has the size {width} x {height}; expected positive pixels.")
        return width, height
    try:
        return read_header(image).size
    except UserError as error:
        raise UserError(f"has neither 'w' and 'h' nor an image to take them from: {error}") from error


def _focal_lengths(keys: dict[str, Any], width: int, height: int) -> tuple[float, float]:
    """Focal lengths in pixels, from fl_x and fl_y or from the fields of view (radians)."""

    def focal(length_key: str, angle_key: str, size: int) -> float | None:
        if length_key in keys:
            return float(keys[length_key])
        return _focal_of_view(float(keys[angle_key]), size) if angle_key in keys else None

    fx, fy = focal("fl_x", "camera_angle_x", width), focal("fl_y", "camera_angle_y", height)
    if fx is None and fy is None:
        raise KeyError("fl_x (or camera_angle_x)")
    fx, fy = fx if fx is not None else fy, fy if fy is not None else fx
    assert fx is not None and fy is not None
    if not (_SMALLEST <= fx <= _LARGEST and _SMALLEST <= fy <= _LARGEST):
        raise UserError(f"has the focal lengths {fx}, {fy}; expected positive pixels.")
    return fx, fy


def _focal_of_view(angle: float, size: int) -> float:
    tangent = math.tan(angle / 2) if math.isfinite(angle) else math.nan
    return size / (2 * tangent) if tangent else math.inf
