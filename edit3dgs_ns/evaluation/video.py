"""Videos with PyAV: no ffmpeg program needed, and never a half-written file under the final name."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.evaluation.sheet import to_uint8

# H.264 plays everywhere; MPEG-4 is in every build of FFmpeg, also in those without x264.
_ENCODERS = (("libx264", {"crf": "16", "preset": "medium"}), ("mpeg4", {"qscale": "3"}))


class VideoWriter:
    """Writes an mp4 frame by frame; it appears under its name when the `with` block ends without an error.

    ```
    with VideoWriter(path, fps=24) as video:
        for frame in frames:
            video.add(frame)      # (height, width, 3) in [0, 1], all of one size
    ```

    H.264 where PyAV's build has x264, else MPEG-4. The pixel format yuv420p needs even sizes: an odd last row
    or column is repeated.
    """

    def __init__(self, path: Path, fps: int = 24):
        self.path = Path(path)
        self.fps = fps
        self._partial = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")

    def __enter__(self) -> VideoWriter:
        import av

        self.path.parent.mkdir(parents=True, exist_ok=True)
        codec, options = next((c, o) for c, o in _ENCODERS if c in av.codecs_available)
        self._container = av.open(str(self._partial), mode="w", format="mp4")
        stream = self._container.add_stream(codec, rate=Fraction(self.fps), options=options)
        assert isinstance(stream, av.VideoStream)
        self._stream = stream
        self._stream.pix_fmt = "yuv420p"
        self._size: tuple[int, int] | None = None
        return self

    def add(self, image: Float[np.ndarray, "height width 3"]) -> None:
        """Append a frame.

        Raises:
            ValueError: its size differs from the first frame's.
        """
        import av

        pixels = to_uint8(image)
        height, width = pixels.shape[:2]
        if self._size is None:
            self._size = (height, width)
            self._stream.height, self._stream.width = height + height % 2, width + width % 2
        if (height, width) != self._size:
            raise ValueError(
                f"The video's frames are {self._size}, this one is {(height, width)} (height, width)."
            )
        padding = [(0, height % 2), (0, width % 2)]
        pixels = np.pad(pixels, [*padding, (0, 0)], mode="edge")
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
            self._container.mux(packet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for packet in self._stream.encode():
                    self._container.mux(packet)
            self._container.close()
            if kind is None:
                os.replace(self._partial, self.path)
        finally:
            self._partial.unlink(missing_ok=True)
