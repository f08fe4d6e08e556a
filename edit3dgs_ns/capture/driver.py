"""Reads a capture or another recording as the motion that drives an avatar, with the driver's images where there are any."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from edit3dgs_ns.capture.compositing import composite_over_white, needs_compositing
from edit3dgs_ns.capture.images import read_image, read_mask
from edit3dgs_ns.capture.transforms import (
    SPLITS,
    FrameEntry,
    each_frame,
    find_capture,
    read_transforms,
    shares_one_motion_file,
    transforms_path,
)
from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.known_motions import AVATAR_MOTION, KNOWN_FORMATS, TRACKED, check_motion_name
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.motion_files import (
    RecordedMotion,
    read_motion_file,
    read_motion_folder,
    require_frames,
)
from edit3dgs_ns.untrusted import parse_json

Part = Literal["all", "train", "val", "test"]
TRACKING_REPORT = "tracking.json"
"""What `edit3dgs track` writes beside a capture."""
_TRACKED_VIDEO = re.compile(r"(\.\w{2,4})?(\.[^.]+)?\.tracked$")
"""End of the folder that a driving video is tracked into (`tracking.driving`)."""


@dataclass(frozen=True)
class DriverImages:
    """Images of the driver's front camera, one a frame."""

    images: tuple[Path, ...]
    """One for each frame of the motion."""
    masks: tuple[Path, ...] | None
    """The foreground in each; None: the images are on white already."""

    def __getitem__(self, frame: int) -> UInt8[np.ndarray, "height width 3"]:
        """The image of a frame, composited over white.

        Raises:
            ValueError: it is damaged, or its mask is of another size.
        """
        colour, coverage = read_image(self.images[frame])
        if coverage is None and self.masks is not None:
            coverage = read_mask(self.masks[frame])
        if coverage is None:
            return colour
        if coverage.shape != colour.shape[:2]:
            raise UserError(f"{self.images[frame]} and its mask have different sizes.")
        return composite_over_white(colour, coverage)


@dataclass(frozen=True)
class Driver:
    """A motion to play, and the images it was tracked in."""

    recorded: RecordedMotion
    images: DriverImages | None = None

    @property
    def name(self) -> str:
        """For a folder's name: letters, digits and few signs."""
        source = self.recorded.source
        plain = source.stem if source.is_file() else source.name
        if plain in ("flame_param", "flame2023_tracking_v2") or plain.startswith("tracked_flame_params"):
            plain = f"{source.parent.name}_{plain}"
        plain = _TRACKED_VIDEO.sub("", plain)
        return re.sub(r"[^A-Za-z0-9._+-]+", "_", plain).strip("._") or "motion"


def read_driver(path: Path, head: FlameAssets, part: Part = "all") -> Driver:
    """Reads a motion of any known kind.

    Args:
        path: a capture's folder, a file that `read_motion_file` reads, or a folder with one (VHAP's output, an avatar of
            GaussianAvatars) or with single frames of VHAP, DECA or EMOCA.
        head: the head model of the avatar to be driven.
        part: of a capture: the timesteps that a split shows.

    Raises:
        FileNotFoundError: there is nothing of that kind.
        ValueError: it is damaged, has no frames, or cannot drive this head.
    """
    path = Path(path).expanduser()
    check_motion_name(path)
    file = path if path.is_file() else _motion_file_in(path)
    if file is not None:
        if part != "all":
            raise UserError(f"--motion-part {part}: {file} is one motion without parts; captures have them.")
        return Driver(read_motion_file(file, head))
    if any(path.glob("transforms_train.json")) or any(path.glob("*/transforms_train.json")):
        return _read_capture(find_capture(path, "--motion"), part)
    recorded = read_motion_folder(path, head)
    if recorded is None:
        raise MissingFileError(f"--motion {path}: no motion in this folder. {KNOWN_FORMATS}")
    return Driver(recorded)


def timesteps_of(folder: Path, part: Part) -> list[int]:
    """Timesteps of a capture that `read_driver` reads, in order."""
    return sorted({frame.timestep_index for frame in _frames(find_capture(folder, "--motion"), part)})


def _motion_file_in(folder: Path) -> Path | None:
    """The npz in a folder that is no capture: VHAP's last epoch (of its last run), or an avatar's."""
    if any(folder.glob("transforms_*.json")):
        return None
    for place in (folder, *sorted((p for p in folder.iterdir() if p.is_dir()), reverse=True)):
        epochs = {int(m[1] or 0): p for p in place.glob("*.npz") if (m := TRACKED.fullmatch(p.name))}
        if epochs:
            return epochs[max(epochs)]
    return folder / AVATAR_MOTION if (folder / AVATAR_MOTION).is_file() else None


def _read_capture(folder: Path, part: Part) -> Driver:
    frames = _frames(folder, part)
    timesteps = sorted({frame.timestep_index for frame in frames})
    if not timesteps:
        raise UserError(
            f"--motion {folder}: the part {part!r} lists no frames, so there is no motion to play."
        )
    motion = _motion(folder, frames, timesteps)
    require_frames(motion, folder)
    held_out = {frame.camera_index for frame in _frames(folder, "val")}
    recorded = RecordedMotion(motion, folder, fps=_fps(folder))
    return Driver(recorded, _driver_images(frames, timesteps, held_out))


def _fps(folder: Path) -> float | None:
    """Timesteps a second, where the capture says it (those of `edit3dgs track` do).

    Raises:
        UserError: it is not a number of frames a second.
    """
    source = transforms_path(folder, "train")
    fps = read_transforms(source).get("fps")
    if fps is None and (folder / TRACKING_REPORT).is_file():
        source = folder / TRACKING_REPORT  # the first captures of `edit3dgs track` say it there alone
        fps = _tracked_fps(source)
    if fps is None:
        return None
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps <= 1000:
        raise UserError(f"{source}: has the fps {fps!r}; expected timesteps a second, up to 1000.")
    return float(fps)


def _tracked_fps(report: Path) -> Any:
    try:
        content = parse_json(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("fps") if isinstance(content, dict) else None


def _frames(folder: Path, part: Part) -> list[FrameEntry]:
    frames = []
    for split in SPLITS if part == "all" else (part,):
        source = transforms_path(folder, split)
        for frame in each_frame(read_transforms(source), source):
            if isinstance(frame, UserError):
                raise frame
            frames.append(frame)
    return frames


def _motion(folder: Path, frames: Sequence[FrameEntry], timesteps: Sequence[int]) -> FlameMotion:
    files = {frame.timestep_index: frame.flame for frame in frames if frame.flame is not None}
    missing = [index for index in timesteps if index not in files]
    if missing:
        raise UserError(
            f"--motion {folder}: {len(missing)} of {len(timesteps)} timesteps have no 'flame_param_path' (the first is "
            f"{missing[0]}): this capture is not tracked. Track it with VHAP."
        )
    if shares_one_motion_file(frames):
        whole = FlameMotion.load(files[timesteps[0]])
        beyond = [index for index in timesteps if not 0 <= index < len(whole)]
        if beyond:
            raise UserError(
                f"--motion {folder}: has the timestep_index {beyond[0]}; {files[timesteps[0]]} has the timesteps 0 to "
                f"{len(whole) - 1}."
            )
        return whole.with_pose(whole.pose(list(timesteps)))
    return FlameMotion.from_frames([files[index] for index in timesteps])


def _driver_images(
    frames: Sequence[FrameEntry], timesteps: Sequence[int], held_out: set[int]
) -> DriverImages | None:
    """Those of the camera in front (the held-out one, if it is known), if it shows every timestep and its files are there."""
    seen: dict[int, dict[int, FrameEntry]] = {}
    for frame in frames:
        seen.setdefault(frame.camera_index, {})[frame.timestep_index] = frame
    whole = {camera: shown for camera, shown in seen.items() if len(shown) == len(timesteps)}
    if not whole:
        return None
    shown = whole[_front({number: whole[number] for number in held_out & whole.keys()} or whole)]
    entries = [shown[index] for index in timesteps]
    if not all(entry.image.is_file() for entry in entries):
        return None
    masks = tuple(e.mask for e in entries if e.mask is not None and e.mask.is_file())
    needed = len(masks) == len(entries) and needs_compositing(
        read_image(entries[0].image)[0], read_mask(masks[0])
    )
    return DriverImages(tuple(e.image for e in entries), masks if needed else None)


def _front(cameras: Mapping[int, Mapping[int, FrameEntry]]) -> int:
    """The camera whose direction is nearest to the mean of all: captures stand around the face."""
    numbers = sorted(cameras)
    back = np.stack([next(iter(cameras[number].values())).c2w[:3, 2] for number in numbers])
    return numbers[int((back @ back.mean(axis=0)).argmax())]
