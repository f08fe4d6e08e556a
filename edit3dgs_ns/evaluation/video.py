"""Videos with PyAV: no ffmpeg program needed, and never a half-written file under the final name."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float, UInt8

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.evaluation.image_layout import to_uint8
from edit3dgs_ns.files import written_beside

# H.264 plays everywhere; MPEG-4 is in every build of FFmpeg, also in those without x264. The quality is given (crf): a slower
# preset makes smaller files, by a fifth for twice the time, which rendering lacks where all cores render.
_ENCODERS = (("libx264", {"crf": "16", "preset": "superfast"}), ("mpeg4", {"qscale": "3"}))
_NICENESS = 15
"""Niceness of the thread that encodes: threads that render wait for each other, so that one core taken from them costs them all."""
_MAX_WAITING = 4
"""Frames that may wait for the encoder: rendering then waits, and memory stays small."""

Item = TypeVar("Item")


class VideoWriter:
    """Writes an mp4 frame by frame; it appears under its name when the `with` block ends without an error.

    ```
    with VideoWriter(path, fps=24) as video:
        for frame in frames:
            video.add(frame)      # (height, width, 3) in [0, 1] or uint8, all of one size
    ```

    H.264 where PyAV's build has x264, else MPEG-4. The pixel format yuv420p needs even sizes: an odd last row
    or column is repeated.
    """

    def __init__(self, path: Path, fps: float = 24):
        self.path = Path(path)
        self.fps = fps
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> VideoWriter:
        import av

        with ExitStack() as stack:
            partial = stack.enter_context(written_beside(self.path))
            self._container = av.open(str(partial), mode="w", format="mp4")
            # Closed before the file is renamed, and also when something fails.
            stack.callback(self._container.close)
            codec, options = next((c, o) for c, o in _ENCODERS if c in av.codecs_available)
            rate = Fraction(self.fps).limit_denominator(1001)
            stream = self._container.add_stream(codec, rate=rate, options=options)
            assert isinstance(stream, av.VideoStream)
            self._stream = stream
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.thread_count = 1  # the cores are for rendering
            self._resources = stack.pop_all()
        return self

    def add(self, image: Float[np.ndarray, "height width 3"] | UInt8[np.ndarray, "height width 3"]) -> None:
        """Append a frame.

        Raises:
            ValueError: its size differs from the first frame's.
        """
        import av

        pixels = image if image.dtype == np.uint8 else to_uint8(image)
        height, width = pixels.shape[:2]
        if self._size is None:
            self._size = (height, width)
            self._stream.height, self._stream.width = height + height % 2, width + width % 2
        if (height, width) != self._size:
            raise UserError(
                f"The video's frames are {self._size}, this one is {(height, width)} (height, width)."
            )
        if height % 2 or width % 2:
            pixels = np.pad(pixels, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
            self._container.mux(packet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._resources.__exit__(kind, error, traceback)
            return
        with self._resources:
            if self._size is None:
                raise UserError(f"{self.path}: a video without frames.")
            for packet in self._stream.encode():
                self._container.mux(packet)


class OverlappedWriter(Generic[Item]):
    """Composes and encodes frames on a thread of its own, while the next one is being rendered.

    Args:
        video: opened; used by the thread alone until the `with` block ends.
        draw: makes the frame from an added item, in the thread: for copying and converting pixels.

    ```
    with VideoWriter(path) as video, OverlappedWriter(video, lambda rgb: rgb) as frames:
        for camera in cameras:
            frames.add(render(camera))
    ```
    """

    def __init__(self, video: VideoWriter, draw: Callable[[Item], np.ndarray]):
        self._video, self._draw = video, draw
        self._waiting: queue.Queue[Item | None] = queue.Queue(_MAX_WAITING)
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="video", daemon=True)

    def __enter__(self) -> OverlappedWriter[Item]:
        self._thread.start()
        return self

    def add(self, item: Item) -> None:
        """Hand over the next frame; waits while the encoder is behind.

        Raises:
            Exception: raised by composing or encoding an earlier frame.
        """
        if self._failed is not None:
            raise self._failed
        self._waiting.put(item)

    def _work(self) -> None:
        _lower_priority()
        while (item := self._waiting.get()) is not None:
            if self._failed is not None:
                continue  # drains the queue, so that `add` does not block
            try:
                self._video.add(self._draw(item))
            except BaseException as error:
                self._failed = error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self._thread.join()
        if kind is None and self._failed is not None:
            raise self._failed


def _lower_priority() -> None:
    """Lowers the priority of this thread on Linux, where niceness belongs to the thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
