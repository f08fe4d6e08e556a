"""Compositing of captured heads over white, and the test whether an image needs it."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

_WHITE_ENOUGH = 250
"""An image is on white already when its background is at least this bright (of 255) almost everywhere."""


def needs_compositing(
    image: UInt8[np.ndarray, "height width *channels"], mask: UInt8[np.ndarray, "height width"]
) -> bool:
    """Whether the background of an image is not white yet. (Compositing twice would lighten soft edges, such as hair.)"""
    outside = image[mask == 0]
    return outside.size > 0 and float((outside < _WHITE_ENOUGH).mean()) > 0.01


def composite_over_white(
    image: UInt8[np.ndarray, "height width 3"], mask: UInt8[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """The foreground over a white background, rounded to the nearest value.

    Args:
        mask: coverage of the foreground, 255 where a pixel is all foreground.
    """
    shade = 255 - image.astype(np.uint16)
    shade *= mask[:, :, None]
    # Division by 255 with rounding, without a division (exact up to 255 * 255): (x + 128 + ((x + 128) >> 8)) >> 8.
    shade += 128
    shade += shade >> 8
    shade >>= 8
    return (255 - shade).astype(np.uint8)
