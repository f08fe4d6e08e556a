"""Images side by side, tiled and under titles, as frames of videos; uint8 throughout, so that encoding need not convert."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

INK = (32, 33, 36)
PAPER = (255, 255, 255)
_WHITE = 255


def to_uint8(image: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """[0, 1] to 0..255, rounded; values outside are clipped."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def side_by_side(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], height: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Images in a row, each scaled to `height` pixels."""
    return np.concatenate([resized(image, height) for image in images], axis=1)


def resized(image: UInt8[np.ndarray, "_ _ 3"], height: int) -> UInt8[np.ndarray, "height width 3"]:
    """The image scaled to `height` pixels, in proportion."""
    if len(image) == height:
        return image
    width = max(1, round(image.shape[1] * height / len(image)))
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def tiled(images: Sequence[UInt8[np.ndarray, "height width 3"]]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Images of one size in about as many rows as columns; the last row is filled up with white."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    missing = [np.full_like(images[0], _WHITE)] * (rows * columns - len(images))
    cells = [*images, *missing]
    return np.concatenate(
        [np.concatenate(cells[row * columns : (row + 1) * columns], axis=1) for row in range(rows)], axis=0
    )


def title_bar(titles: Sequence[str], widths: Sequence[int]) -> UInt8[np.ndarray, "height width 3"]:
    """A white strip with a centred title over each of some images in a row; its height is even and fits the largest title."""
    strips = [_title(title, width) for title, width in zip(titles, widths, strict=True)]
    height = max(len(strip) for strip in strips)
    height += height % 2  # videos have even sizes: otherwise their last row would be added below the images
    padded = []
    for strip in strips:
        above = (height - len(strip)) // 2
        rows = ((above, height - len(strip) - above), (0, 0), (0, 0))
        padded.append(np.pad(strip, rows, constant_values=_WHITE))
    return np.concatenate(padded, axis=1)


def font_of_size(size: int) -> ImageFont.FreeTypeFont:
    """The font that Pillow bundles: text looks the same on every machine."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _title(text: str, width: int) -> UInt8[np.ndarray, "height width 3"]:
    font = font_of_size(max(10, round(width / 18)))
    strip = Image.new("RGB", (width, round(font.size * 1.9)), PAPER)
    ImageDraw.Draw(strip).text((width // 2, strip.height // 2), text, fill=INK, font=font, anchor="mm")
    return np.asarray(strip)
