"""Frames of a video or of a folder of images, upright, at an even frame rate.

Videos are decoded with PyAV. A phone writes frames at uneven times and lying on their side with a matrix that says how to turn
them: frames are turned, and sampled on an even clock (each tick takes the frame that is nearest in time).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from edit3dgs_ns.capture.images import read_image
from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.flame.known_motions import IMAGE_SUFFIXES

MOST_FPS = 30.0
"""Frames a second that are kept unless more are asked for: faces hardly move within a sixtieth of a second."""
FEWEST_FRAMES = 10
"""A still, or less than this, shows neither a shape from several sides nor a motion."""
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""Values of FFmpeg's AVColorTransferCharacteristic whose colours are not those of a display."""

Frame = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class VideoPart:
    """What of a video is used."""

    start: float = 0.0
    """Seconds."""
    end: float = math.inf
    """Seconds."""
    fps: float | None = None
    """Frames a second; None takes the video's own, at most `MOST_FPS`."""

    def validate(self) -> None:
        """Check ranges.

        Raises:
            UserError: names the option and the value.
        """
        if not (math.isfinite(self.start) and self.start >= 0):
            raise UserError(f"--start {self.start}: expected seconds from the video's beginning, 0 or more.")
        if not self.end > self.start:
            raise UserError(f"--end {self.end}: expected more than --start {self.start}.")
        if self.fps is not None and not (math.isfinite(self.fps) and 1 <= self.fps <= 240):
            raise UserError(f"--fps {self.fps}: expected frames a second from 1 to 240.")


@dataclass(frozen=True)
class VideoInfo:
    """What is known before frames are decoded."""

    path: Path
    width: int
    """Pixels, upright."""
    height: int
    fps: float
    """Frames a second that `read_frames` yields."""
    frames: int | None
    """About how many it yields; None where the file does not say."""
    part: VideoPart = field(default_factory=VideoPart)
    """What of it is used."""
    notes: tuple[str, ...] = ()
    """What the user should know of the file."""


def describe_video(path: Path, part: VideoPart | None = None) -> VideoInfo:
    """Check that a path holds frames, and return their size and rate.

    Raises:
        MissingFileError: nothing there.
        UserError: no video, one without images (audio alone), a still, or an empty folder.
    """
    part = part or VideoPart()
    part.validate()
    path = Path(path)
    if path.is_dir():
        return _describe_folder(path, part)
    with _opened(path) as container:
        stream = _video_stream(container, path)
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            raise UserError(f"{path}: no frame in it can be decoded. Convert it, e.g. to MP4 with H.264.")
        height, width = _upright(first).shape[:2]
        own = float(stream.average_rate or stream.guessed_rate or MOST_FPS)
        fps = part.fps or min(own, MOST_FPS)
        seconds = _duration(container, stream)
        count = None
        if seconds is not None:
            if part.start >= seconds:
                raise UserError(f"--start {part.start:g}: {path} ends after {seconds:.1f} seconds.")
            count = max(1, round((min(part.end, seconds) - part.start) * fps))
        if next(frames, None) is None:
            raise UserError(f"{path}: is a still image. A head is tracked in a video of at least a second.")
        if count is not None and count < FEWEST_FRAMES:
            raise _too_few(path, part, f"has {count} frames")
        notes = []
        transfer = _HDR_TRANSFERS.get(int(stream.codec_context.color_trc or 0))
        if transfer:
            notes.append(
                f"{path.name} is an HDR video ({transfer}): its colours come out pale. Export it as SDR for true ones."
            )
        return VideoInfo(path, width, height, fps, count, part, tuple(notes))


def _too_few(path: Path, part: VideoPart, found: str) -> UserError:
    options = [f"--start {part.start:g}"] * (part.start > 0) + [f"--end {part.end:g}"] * math.isfinite(
        part.end
    )
    options += [] if part.fps is None else [f"--fps {part.fps:g}"]
    chosen = f" with {' '.join(options)}" if options else ""
    return UserError(
        f"{path}: {found}{chosen}. A head is tracked in at least {FEWEST_FRAMES} frames of a video."
    )


def read_frames(info: VideoInfo) -> Iterator[Frame]:
    """Yield upright RGB frames of a video or folder, evenly spaced in time, from `start` to before `end`.

    Raises:
        UserError: the file is damaged in its middle, or frames have several sizes.
    """
    part = info.part
    if info.path.is_dir():
        yield from _folder_frames(info)
        return
    tick = 0
    previous: tuple[float, av.VideoFrame] | None = None
    shown = 1 / info.fps
    for time, frame in _timed_frames(info.path):
        if previous is not None:
            # The ticks that lie nearer to the frame before than to this one.
            while (when := part.start + tick / info.fps) <= (previous[0] + time) / 2:
                if when >= part.end - 1e-9:
                    return
                yield _upright(previous[1])
                tick += 1
            shown = time - previous[0]
        previous = (time, frame)
    if previous is None:
        return
    while (when := part.start + tick / info.fps) <= previous[0] + shown / 2 and when < part.end - 1e-9:
        yield _upright(previous[1])
        tick += 1


def _timed_frames(path: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames in the order of showing, with seconds since the first."""
    with _opened(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        origin, last = None, -1.0
        number = 0
        try:
            for frame in container.decode(stream):
                time = (
                    frame.time if frame.time is not None else number / float(stream.average_rate or MOST_FPS)
                )
                origin = time if origin is None else origin
                number += 1
                if time - origin > last:
                    last = time - origin
                    yield last, frame
        except av.FFmpegError as error:
            raise UserError(
                f"{path}: is damaged after frame {number} ({error.strerror}). Cut it off there with --end {last:.1f}."
            ) from error


def _upright(frame: av.VideoFrame) -> Frame:
    pixels = frame.to_ndarray(format="rgb24")
    # FFmpeg's angle is counter-clockwise, as numpy's is.
    turns = round(float(getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _opened(path: Path):
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder.")
    try:
        return av.open(str(path))
    except av.FFmpegError as error:
        raise UserError(
            f"{path}: cannot be read as a video ({error.strerror}). Convert it, e.g. to MP4 with H.264."
        ) from error


def _video_stream(container, path: Path):
    # A cover image of a song is a video stream too.
    streams = [s for s in container.streams.video if not (s.disposition & av.stream.Disposition.attached_pic)]
    if not streams:
        found = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise UserError(f"{path}: holds no images, only {found}. Give a video that shows the face.")
    return streams[0]


def _duration(container, stream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


# -- folders --------------------------------------------------------------------------------------------------------------


def numbered(paths: Iterable[Path]) -> list[Path]:
    """Files in the order of the numbers in their names: 2.png before 10.png."""

    def key(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]

    return sorted(paths, key=key)


def frame_files(folder: Path) -> list[Path]:
    """The images in a folder, in the order of their numbers."""
    return numbered(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def _describe_folder(folder: Path, part: VideoPart) -> VideoInfo:
    images = frame_files(folder)
    if not images:
        raise UserError(
            f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)}). Give a video, or a folder of its frames."
        )
    if len(images) < FEWEST_FRAMES:
        raise _too_few(folder, VideoPart(), f"holds {len(images)} images")
    height, width = read_image(images[0])[0].shape[:2]
    fps = part.fps or 25.0
    chosen = _chosen(len(images), part, fps)
    if not chosen:
        raise UserError(f"--start {part.start:g}: {folder} ends after {len(images) / fps:.1f} seconds.")
    if len(chosen) < FEWEST_FRAMES:
        raise _too_few(folder, part, f"holds {len(chosen)} images")
    notes = (
        () if part.fps else (f"{folder.name}: taken as {fps:g} frames a second; --fps says another rate.",)
    )
    return VideoInfo(folder, width, height, fps, len(chosen), part, notes)


def _chosen(count: int, part: VideoPart, fps: float) -> range:
    return range(
        round(part.start * fps), count if math.isinf(part.end) else min(count, round(part.end * fps))
    )


def _folder_frames(info: VideoInfo) -> Iterator[Frame]:
    images = frame_files(info.path)
    for number in _chosen(len(images), info.part, info.fps):
        frame, _ = read_image(images[number])
        if frame.shape[:2] != (info.height, info.width):
            raise UserError(
                f"{images[number]}: is {frame.shape[1]} x {frame.shape[0]} pixels, {images[0].name} is {info.width} x "
                f"{info.height}. The frames of one video have one size."
            )
        yield frame
