"""Pictures beside and above each other, as the frames of videos; uint8 throughout, so that encoding need not convert."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from edit3dgs_ns.evaluation.sheet import draw_header, to_uint8

_WHITE = 255


def beside(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], height: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Pictures in a row, each scaled to `height` pixels."""
    return np.concatenate([scaled(picture, height) for picture in pictures], axis=1)


def scaled(picture: UInt8[np.ndarray, "_ _ 3"], height: int) -> UInt8[np.ndarray, "height width 3"]:
    """A picture of another height, in proportion."""
    if len(picture) == height:
        return picture
    width = max(1, round(picture.shape[1] * height / len(picture)))
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def grid(pictures: Sequence[UInt8[np.ndarray, "height width 3"]]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Pictures of one size in a grid, about as many rows as columns; white where there are none left."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    missing = [np.full_like(pictures[0], _WHITE)] * (rows * columns - len(pictures))
    cells = [*pictures, *missing]
    return np.concatenate(
        [np.concatenate(cells[row * columns : (row + 1) * columns], axis=1) for row in range(rows)], axis=0
    )


def header_above(titles: Sequence[str], widths: Sequence[int]) -> UInt8[np.ndarray, "height width 3"]:
    """A strip with one title over each of some pictures in a row; as high as the narrowest's needs to be read."""
    strips = [to_uint8(draw_header((title,), width)) for title, width in zip(titles, widths, strict=True)]
    height = max(len(strip) for strip in strips)
    height += height % 2  # videos have even sizes: otherwise their last row would be added below the pictures
    padded = []
    for strip in strips:
        above = (height - len(strip)) // 2
        rows = ((above, height - len(strip) - above), (0, 0), (0, 0))
        padded.append(np.pad(strip, rows, constant_values=_WHITE))
    return np.concatenate(padded, axis=1)


def to_pixels(image: Float[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """A render in [0, 1] as bytes."""
    return to_uint8(image)
