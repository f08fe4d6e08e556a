"""Writes a mended copy of a capture: transforms files of its own, and links to the images, masks and head parameters.

Nothing of the capture is changed. The folder can be moved as long as the capture stays where it is.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.capture.head_views import CameraChange, camera_of
from edit3dgs_ns.capture.transforms import (
    SPLITS,
    FrameEntry,
    check_output,
    each_frame,
    read_transforms,
    transforms_path,
)
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import write_atomically

FrameChange = Callable[[FrameEntry], FrameEntry | None]
"""A frame as it should be; None to leave it out."""
_LINKED = ("canonical_flame_param.npz",)


@dataclass(frozen=True)
class Repair:
    """What is changed, in words and as a function of frames."""

    what: str
    """Continues "Mended: ..."."""
    change: FrameChange


def camera_repair(what: str, change: CameraChange) -> Repair:
    """A change of all cameras."""
    return Repair(what, lambda frame: with_camera(frame, change(camera_of(frame))))


def with_camera(frame: FrameEntry, camera: Camera) -> FrameEntry:
    """The frame with another camera, whose principal point counts."""
    return replace(
        frame,
        c2w=camera.c2w,
        fx=float(camera.K[0, 0]),
        fy=float(camera.K[1, 1]),
        cx=float(camera.K[0, 2]),
        cy=float(camera.K[1, 2]),
        width=camera.width,
        height=camera.height,
        cy_from="top",
    )


def repaired(frames: Iterable[FrameEntry], repairs: Iterable[Repair]) -> list[FrameEntry]:
    """The frames after all repairs, without those that are left out."""
    kept = list(frames)
    for repair in repairs:
        changed = [repair.change(frame) for frame in kept]
        kept = [frame for frame in changed if frame is not None]
    return kept


def write_repaired(folder: Path, out: Path, repairs: Iterable[Repair]) -> Path:
    """Writes the mended capture.

    Args:
        folder: of the capture.
        out: new folder.
        repairs: in the order in which they were found.

    Returns:
        `out`.

    Raises:
        FileExistsError: `out` holds something.
    """
    check_output(out)
    out.mkdir(parents=True, exist_ok=True)
    links: dict[Path, str] = {}
    repairs = list(repairs)
    for split in SPLITS:
        path = transforms_path(folder, split)
        content = read_transforms(path)
        entries = []
        for raw, frame in zip(content["frames"], each_frame(content, path), strict=True):
            if isinstance(frame, UserError):
                continue  # the check has named it
            for mended in repaired([frame], repairs):
                entries.append(_entry(raw, mended, lambda file: _linked(file, folder, out, links)))
        top = {key: value for key, value in content.items() if key not in _OF_FRAMES}
        if "flame_param_path" in content and entries:
            top["flame_param_path"] = entries[0].pop("flame_param_path", content["flame_param_path"])
            for entry in entries:
                entry.pop("flame_param_path", None)
        top["timestep_indices"] = sorted({entry["timestep_index"] for entry in entries})
        text = json.dumps({**top, "frames": entries}, indent=1) + "\n"
        write_atomically(out / path.name, text.encode())
    for name in _LINKED:
        if (folder / name).is_file():
            os.symlink(folder / name, out / name)
    return out


_OF_FRAMES = {"frames", "cx", "cy", "fl_x", "fl_y", "w", "h", "camera_angle_x", "camera_angle_y", "cy_from"}
"""Keys that frames carry themselves in a mended capture."""


def _entry(raw: dict[str, Any], frame: FrameEntry, link: Callable[[Path], str]) -> dict[str, Any]:
    entry = {
        **raw,
        "timestep_index": frame.timestep_index,
        "transform_matrix": frame.c2w.tolist(),
        "fl_x": frame.fx,
        "fl_y": frame.fy,
        "w": frame.width,
        "h": frame.height,
        "camera_angle_x": 2 * math.atan(frame.width / (2 * frame.fx)),
        "camera_angle_y": 2 * math.atan(frame.height / (2 * frame.fy)),
        "file_path": link(frame.image),
    }
    for key, path in (("fg_mask_path", frame.mask), ("flame_param_path", frame.flame)):
        if path is not None:
            entry[key] = link(path)
    for key in ("cx", "cy", "cy_from"):
        if (value := getattr(frame, key)) is not None:
            entry[key] = value
    return entry


def _linked(file: Path, folder: Path, out: Path, links: dict[Path, str]) -> str:
    """The name of a file below `out`, through a link to the folder that it is in."""
    if file.parent not in links:
        below = os.path.relpath(file.parent, folder.parent)
        if file.parent == folder:
            below = "files"
        elif file.parent.is_relative_to(folder):
            below = os.path.relpath(file.parent, folder)
        (out / below).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(file.parent, out / below, target_is_directory=True)
        links[file.parent] = below.replace(os.sep, "/")
    return f"{links[file.parent]}/{file.name}"
