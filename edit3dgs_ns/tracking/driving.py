"""Videos as drivers: whatever `read_driver` reads, and videos, which are tracked first.

A video `talk.mp4` is tracked once, into `talk.mp4.tracked` beside it; after that, reading it costs little. A video that was
replaced is tracked again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edit3dgs_ns.errors import UserError

if TYPE_CHECKING:
    from edit3dgs_ns.capture.driver import Driver, Part
    from edit3dgs_ns.flame.assets import FlameAssets

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".3gp")
IMAGE_SIZE = 256
"""Pixels of a driver's own images, which are only looked at."""


def is_video(path: Path) -> bool:
    """Whether a motion is a video, by the ending of its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def tracked_folder(video: Path) -> Path:
    """Where a video's motion is kept."""
    return video.with_name(f"{video.name}.tracked")


def open_driver(
    path: Path,
    head: FlameAssets,
    part: Part = "all",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Driver:
    """Read a motion of any kind, tracking it first if it is a video.

    Args:
        path: what `read_driver` reads, or a video.
        head: the head model of the avatar to be driven; a video is tracked with it.
        part: of a capture or video: the timesteps of a split.
        progress: is told how far tracking is.

    Raises:
        UserError: as `read_driver` and `track_video`; or the folder beside the video cannot be written.
    """
    from edit3dgs_ns.capture.driver import read_driver

    path = Path(path).expanduser()
    if not (is_video(path) and path.is_file()):
        return read_driver(path, head, part)
    from edit3dgs_ns.tracking.job import track_video
    from edit3dgs_ns.tracking.output import TrackingOptions

    folder = tracked_folder(path)
    if not folder.exists() and not os.access(path.parent, os.W_OK):
        raise UserError(
            f"--motion {path}: is tracked into {folder.name} beside it, and {path.parent} cannot be written. Track it "
            "elsewhere with `edit3dgs track`, and give that folder."
        )
    track_video(path, folder, head, TrackingOptions(size=IMAGE_SIZE), overwrite=True, progress=progress)
    return read_driver(folder, head, part)
