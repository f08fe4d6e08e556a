"""Soft masks of the person, from MediaPipe's selfie segmentation or the user's own, cleaned over time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from edit3dgs_ns.tracking.video import numbered

Mask = Float[np.ndarray, "height width"]

STEADY = (0.25, 0.5, 0.25)
"""Weights of the frame before, the frame and the frame after: single frames flicker at the hair."""
CONTRAST = (0.15, 0.85)
"""Coverage below is background, above is the person."""


def steadied(masks: Iterable[Mask]) -> Iterator[Mask]:
    """Masks averaged with their neighbours in time, one for each that is given."""
    window: list[Mask] = []
    for mask in masks:
        window.append(mask)
        if len(window) == 1:
            window.append(mask)  # before the first: itself
        if len(window) == 4:
            window.pop(0)
        if len(window) == 3:
            yield _mean(window)
    if window:
        last = window[-1]
        yield _mean([window[-2], last, last])


def _mean(window: list[Mask]) -> Mask:
    return np.einsum("n,nhw->hw", np.array(STEADY, np.float32), np.stack(window))


def cleaned(mask: Mask, face: tuple[float, float]) -> Mask:
    """The part of a mask that holds the face, with more contrast.

    Args:
        mask: coverage in [0, 1].
        face: x and y of a point in the face, pixels.
    """
    low, high = CONTRAST
    share = np.clip((mask - low) / (high - low), 0, 1)
    clear = (share * share * (3 - 2 * share)).astype(np.float32)
    count, labels = cv2.connectedComponents((clear > 0.05).astype(np.uint8))
    height, width = mask.shape
    x, y = (int(np.clip(v, 0, n - 1)) for v, n in zip(face, (width, height), strict=True))
    label = labels[y, x]
    return np.where(labels == label, clear, 0).astype(np.float32) if label and count > 2 else clear


def mask_files(folder: Path) -> list[Path]:
    """The masks in a folder, in the order of their numbers."""
    return numbered(
        path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")
    )
