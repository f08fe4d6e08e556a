"""The square of the frame that shows the head, the same for all frames of a video."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

MARGIN = 0.75
"""Of the face's size, on every side: hair, ears, neck and some of the shoulders."""
LOWER_MARGIN = 1.0


@dataclass(frozen=True)
class Crop:
    """A square part of a frame, scaled to `size` pixels; parts outside the frame are white."""

    left: float
    top: float
    side: float
    """Pixels of the frame."""
    size: int
    """Pixels of the cropped image."""

    @property
    def scale(self) -> float:
        """Pixels of the crop in a pixel of the frame."""
        return self.size / self.side

    def points(self, pixels: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Frame coordinates -> crop coordinates."""
        return (pixels - np.array([self.left, self.top])) * self.scale

    def image(self, frame: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "size size c"]:
        """The cropped part, resampled over areas where it shrinks."""
        shrinks = self.scale < 1
        side = round(self.side)
        left, top = round(self.left), round(self.top)
        height, width = frame.shape[:2]
        part = np.full((side, side, *frame.shape[2:]), 255, frame.dtype)
        y0, y1, x0, x1 = max(top, 0), min(top + side, height), max(left, 0), min(left + side, width)
        part[y0 - top : y1 - top, x0 - left : x1 - left] = frame[y0:y1, x0:x1]
        return cv2.resize(
            part, (self.size, self.size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        )


def crop_around(landmarks: Float[np.ndarray, "T L 2"], width: int, height: int, size: int) -> Crop:
    """The square around the face in every frame, with room for hair and shoulders.

    It is moved into the frame where it fits, and is never larger than the frame's longer side.
    """
    low, high = np.percentile(landmarks.min(1), 2, axis=0), np.percentile(landmarks.max(1), 98, axis=0)
    face = float(np.median((landmarks.max(1) - landmarks.min(1)).max(1)))
    low = low - MARGIN * face * np.array([1, 1])
    high = high + face * np.array([MARGIN, LOWER_MARGIN])
    side = float(np.ceil(min(max(high - low), max(width, height))))
    middle = (low + high) / 2
    left, top = middle - side / 2
    left = np.clip(left, 0, width - side) if side <= width else (width - side) / 2
    top = np.clip(top, 0, height - side) if side <= height else (height - side) / 2
    return Crop(float(np.round(left)), float(np.round(top)), side, size)
