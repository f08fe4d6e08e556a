"""Reads what `edit3dgs track --multi` tracks: the images of several synchronised cameras whose places are known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from edit3dgs_ns.capture.cameras import FRONT_CAMERA, Camera
from edit3dgs_ns.capture.images import read_image, read_mask
from edit3dgs_ns.capture.layout import SPLITS
from edit3dgs_ns.capture.transforms import (
    FrameEntry,
    each_frame,
    find_capture,
    read_transforms,
    transforms_path,
)
from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.tracking.output import stamps

FPS = 25.0
"""Timesteps a second, where the capture does not say it."""
OPTION = "--multi"


@dataclass(frozen=True)
class MultiCapture:
    """Images of several cameras, by camera and timestep."""

    folder: Path
    frames: dict[tuple[int, int], FrameEntry]
    splits: dict[tuple[int, int], str]
    fps: float

    @classmethod
    def read(cls, path: Path) -> MultiCapture:
        """Read the transforms files of a folder.

        Raises:
            UserError: an entry is damaged, an image is missing, a camera moves, or there is one camera alone.
        """
        folder = find_capture(path, OPTION)
        frames: dict[tuple[int, int], FrameEntry] = {}
        splits: dict[tuple[int, int], str] = {}
        contents = {s: read_transforms(p) for s in SPLITS if (p := transforms_path(folder, s)).is_file()}
        for split, content in contents.items():
            for entry in each_frame(content, transforms_path(folder, split)):
                if isinstance(entry, UserError):
                    raise entry
                key = (entry.camera_index, entry.timestep_index)
                frames[key], splits[key] = entry, split
        if len({camera for camera, _ in frames}) < 2:
            raise UserError(
                f"{OPTION} {folder}: expected several cameras. A video of one camera goes without {OPTION}."
            )
        fps = _fps_of(contents["train"], transforms_path(folder, "train"))
        missing = [entry.image for entry in frames.values() if not entry.image.is_file()]
        if missing:
            raise MissingFileError(
                f"{OPTION} {folder}: {len(missing)} of {len(frames)} images are missing, e.g. {missing[0]}."
            )
        capture = cls(folder, frames, splits, fps)
        capture._check_still()
        return capture

    @cached_property
    def cameras(self) -> dict[int, Camera]:
        """By their numbers."""
        found: dict[int, Camera] = {}
        for (number, _), entry in sorted(self.frames.items()):
            if number not in found:
                cx, cy = entry.principal_point()
                K = np.array([[entry.fx, 0, cx], [0, entry.fy, cy], [0, 0, 1.0]])
                found[number] = Camera(entry.c2w, K, entry.width, entry.height)
        return found

    def _check_still(self) -> None:
        for (number, _), entry in self.frames.items():
            if not np.allclose(self.cameras[number].c2w, entry.c2w, atol=1e-4):
                raise UserError(
                    f"{OPTION} {self.folder}: camera {number} moves. The cameras are to stand still."
                )

    @property
    def timesteps(self) -> list[int]:
        """In order."""
        return sorted({timestep for _, timestep in self.frames})

    def timesteps_of(self, camera: int) -> list[int]:
        """Those of which a camera has an image, in order."""
        return sorted(timestep for number, timestep in self.frames if number == camera)

    @property
    def front(self) -> int:
        """The usual front camera, or the one whose direction is nearest to the mean of all."""
        if FRONT_CAMERA in self.cameras:
            return FRONT_CAMERA
        back = np.stack([camera.c2w[:3, 2] for camera in self.cameras.values()])
        return list(self.cameras)[int((back @ back.mean(0)).argmax())]

    def image(self, camera: int, timestep: int) -> UInt8[np.ndarray, "h w 3"]:
        """The colours of an image."""
        entry = self.frames[camera, timestep]
        return read_image(entry.image, (entry.width, entry.height))[0]

    def mask(self, camera: int, timestep: int) -> Float[np.ndarray, "h w"] | None:
        """Share of each pixel that shows the person, in [0, 1], where the capture has a mask."""
        entry = self.frames[camera, timestep]
        if entry.mask is None or not entry.mask.is_file():
            return None
        return read_mask(entry.mask, (entry.width, entry.height)) / np.float32(255)

    def settings(self, head: Path) -> dict[str, Any]:
        """What its tracking depends on, for tracking.json: another one of it is another tracking.

        Args:
            head: file of the head model.
        """
        files = {transforms_path(self.folder, split) for split in SPLITS}
        files |= {entry.image for entry in self.frames.values()}
        files |= {entry.mask for entry in self.frames.values() if entry.mask is not None}
        content = repr(stamps(sorted(file for file in files if file.is_file())))
        return {
            "video": str(self.folder),
            "content": hashlib.sha256(content.encode()).hexdigest(),
            "head": str(head.resolve()),
            "part": None,
            "size": 0,
        }


def _fps_of(content: Mapping[str, Any], path: Path) -> float:
    fps = content.get("fps")
    if fps is None:
        return FPS
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 1 <= fps <= 240:
        raise UserError(f"{path}: fps is {fps!r}. Expected frames a second from 1 to 240.")
    return float(fps)
