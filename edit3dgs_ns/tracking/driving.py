"""Videos as drivers: whatever `read_driver` reads, and videos or folders of their frames, which are tracked first.

A video `talk.mp4` is tracked once, into `talk.mp4.tracked` beside it (for FLAME into `talk.mp4.flame2023_Open.tracked`); after
that, nothing is detected or fitted for it. A video that was replaced is tracked again, and so is one whose folder is spoilt.
Over frames without a face its motion goes on evenly (`gaps`).
ARKit's coefficients drive heads of FLAME, too (`arkit_actions`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.known_motions import IMAGE_SUFFIXES, holds_motion

if TYPE_CHECKING:
    from edit3dgs_ns.capture.driver import Driver, Part
    from edit3dgs_ns.flame.assets import FlameAssets
    from edit3dgs_ns.flame.motion import FlameMotion
    from edit3dgs_ns.flame.motion_files import RecordedMotion
    from edit3dgs_ns.flame.retarget import RetargetOptions

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".3gp", ".gif")
ARKIT_SUFFIXES = (".csv", ".json")
IMAGE_SIZE = 256
"""Pixels of a driver's own images, which are only looked at."""


def is_video(path: Path) -> bool:
    """Whether a motion is a video that is there, by the ending of its name; or a folder of nothing but a video's frames."""
    if path.is_dir():
        images = (file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        return not holds_motion(path) and next(images, None) is not None
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def tracked_folder(video: Path, head: FlameAssets | None = None) -> Path:
    """Where a video's motion is kept; that of each head model apart. None: the open head's."""
    video = video if video.name.strip(".") else video.resolve()
    flame = "" if head is None or head.name == "open-head" else f".{head.source.stem}"
    return video.with_name(f"{video.name}{flame}.tracked")


def open_driver(
    path: Path,
    head: FlameAssets,
    part: Part = "all",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Driver:
    """Read a motion of any kind, tracking it first if it is a video.

    Args:
        path: what `read_driver` reads, a video, or a folder of its frames.
        head: the head model of the avatar to be driven; a video is tracked with it.
        part: of a capture or video: the timesteps of a split.
        progress: is told how far tracking is.

    Raises:
        UserError: as `read_driver` and `track_video`; or the folder beside the video cannot be written.
    """
    from edit3dgs_ns.capture.driver import read_driver

    path = Path(path).expanduser()
    if head.expression_names is None and path.suffix.lower() in ARKIT_SUFFIXES and path.is_file():
        return _arkit_driver(path, head, part)
    if not is_video(path):
        return _as_in_the_video(read_driver(path, head, part), path, part)
    folder = tracked_folder(path, head)
    if not folder.exists() and not os.access(path.parent, os.W_OK):
        raise UserError(
            f"--motion {path}: is tracked into {folder.name} beside it, and {path.parent} cannot be written. Track it "
            "elsewhere with `edit3dgs track`, and give that folder."
        )
    said = _track_once(path, folder, head, progress)
    driver = _as_in_the_video(read_driver(folder, head, part), folder, part)
    notes = (*driver.recorded.notes, *said)
    return replace(driver, recorded=replace(driver.recorded, notes=notes))


def _track_once(
    path: Path, folder: Path, head: FlameAssets, progress: Callable[[str, int, int], None]
) -> tuple[str, ...]:
    """Track a video unless its folder holds that tracking, finished; returns what the user should know."""
    from edit3dgs_ns.tracking.output import (
        SpoiltTrackingError,
        TrackingOptions,
        begin_folder,
        is_finished,
        settings_of,
    )

    options = TrackingOptions(size=IMAGE_SIZE)
    settings = settings_of(path, head.source, options)
    said: tuple[str, ...] = ()
    try:
        if is_finished(folder, settings):
            return ()
    except SpoiltTrackingError as error:
        said = (f"{error}: {path.name} was tracked again",)
        begin_folder(folder, settings, "replaces")
    from edit3dgs_ns.tracking.job import track_video

    track_video(path, folder, head, options, overwrite=True, progress=progress)
    return said


def _arkit_driver(path: Path, head: FlameAssets, part: Part) -> Driver:
    """ARKit's coefficients for a head whose expressions have other names, or none."""
    from edit3dgs_ns.capture.driver import Driver
    from edit3dgs_ns.flame.arkit import read_arkit
    from edit3dgs_ns.tracking.arkit_actions import arkit_on_flame

    if part != "all":
        raise UserError(f"--motion-part {part}: {path} is one motion without parts; captures have them.")
    return Driver(arkit_on_flame(read_arkit(path), head))


def drive(
    recorded: RecordedMotion, actor: FlameMotion, head: FlameAssets, options: RetargetOptions | None = None
) -> tuple[FlameMotion, tuple[str, ...]]:
    """`retarget`, with lids and lips as far apart as the driver's where that was measured.

    Raises:
        ValueError: as `retarget`.
    """
    from edit3dgs_ns.flame.retarget import RetargetOptions, retarget, smoothed
    from edit3dgs_ns.tracking.calibration import FACE_LANDMARKS, LidsAndLips, calibrated
    from edit3dgs_ns.tracking.landmark_transfer import dense_table_of

    options = options or RetargetOptions()
    options.check(recorded)
    played, notes = retarget(recorded, actor, head, replace(options, smooth=0.0))
    if options.calibrate and recorded.openness is not None:
        table = dense_table_of(head)
        if set(FACE_LANDMARKS) <= set(table.landmarks.tolist()):
            played = calibrated(played, recorded.openness, LidsAndLips.of(head, actor, table))
        else:
            notes = (
                *notes,
                f"lids and lips are as they were fitted: {table.source.name} does not have all of them",
            )
    return smoothed(played, options.smooth) if options.smooth > 0 else played, notes


def _as_in_the_video(driver: Driver, folder: Path, part: Part) -> Driver:
    """Adds to the motion of a tracked video how far eyes and mouth are open, and the frames that show no face."""
    import numpy as np

    from edit3dgs_ns.capture.driver import timesteps_of
    from edit3dgs_ns.flame.openness import FaceOpenness
    from edit3dgs_ns.tracking.calibration import openness_of
    from edit3dgs_ns.tracking.detections import read_detections
    from edit3dgs_ns.tracking.gaps import with_gaps_filled

    detections = read_detections(folder) if folder.is_dir() else None
    if detections is None:
        return driver

    # Levels are those of the whole video, whatever part is played.
    whole = openness_of(detections.landmarks[detections.found])
    rows = timesteps_of(folder, part)
    if len(rows) != len(driver.recorded.motion) or max(rows) >= len(whole.mouth):
        return driver
    openness = FaceOpenness(whole.lids[rows], whole.mouth[rows])
    driver = replace(driver, recorded=replace(driver.recorded, openness=openness))
    return with_gaps_filled(driver, np.flatnonzero(detections.found)[rows], detections.found)
