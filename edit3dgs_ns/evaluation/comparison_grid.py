"""The before/after grid of renders: rows are avatars, columns are views and expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.evaluation.image_layout import INK, PAPER, font_of_size, to_uint8

_FAINT = (110, 114, 120)
_GAP = 8
_MARGIN = 20


@dataclass(frozen=True)
class Column:
    """One view or expression, with one image per row."""

    caption: str
    images: Sequence[Float[np.ndarray, "height width 3"]]
    """One per row, top to bottom, in [0, 1]; all of one size."""
    group: str = ""
    """A heading that neighbouring columns share."""


@dataclass(frozen=True)
class Row:
    """Heading of a row: a title and a smaller, fainter line under it."""

    title: str
    detail: str = ""


def draw_comparison_grid(
    columns: Sequence[Column], rows: Sequence[Row], cell_width: int = 256
) -> Image.Image:
    """The images on white, with a heading for each row and a caption under each column.

    Args:
        cell_width: width of each image in the grid, pixels; the height follows from the images.

    Raises:
        ValueError: no columns, a column without an image for each row, or images of different sizes.
    """
    _check(columns, rows)
    height, width = columns[0].images[0].shape[:2]
    cell = (cell_width, round(cell_width * height / width))
    title_font, text_font = font_of_size(round(cell_width / 13)), font_of_size(round(cell_width / 16))
    label_width = _label_width(rows, title_font, text_font, limit=round(cell_width * 0.72))
    line = round(cell_width / 16 * 1.5)
    top = _MARGIN + (line + 6 if any(column.group for column in columns) else 0)
    grid_width = 2 * _MARGIN + label_width + len(columns) * (cell[0] + _GAP) - _GAP
    grid_height = top + len(rows) * (cell[1] + _GAP) + line + _MARGIN
    grid = Image.new("RGB", (grid_width, grid_height), PAPER)
    draw = ImageDraw.Draw(grid)
    left = _MARGIN + label_width
    for r, row in enumerate(rows):
        middle = top + r * (cell[1] + _GAP) + cell[1] // 2
        _draw_label(draw, row, middle, label_width - _MARGIN, title_font, text_font)
    for c, column in enumerate(columns):
        x = left + c * (cell[0] + _GAP)
        for r, image in enumerate(column.images):
            grid.paste(_cell(image, cell), (x, top + r * (cell[1] + _GAP)))
        bottom = top + len(rows) * (cell[1] + _GAP)
        draw.text((x + cell[0] // 2, bottom), column.caption, fill=_FAINT, font=text_font, anchor="ma")
    _draw_groups(draw, columns, left, cell[0], text_font)
    return grid


def _check(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    if not columns or not rows:
        raise UserError(f"A comparison grid needs columns and rows; found {len(columns)} and {len(rows)}.")
    shapes = {image.shape for column in columns for image in column.images}
    if len(shapes) != 1:
        raise UserError(f"All images of a comparison grid have one size; found {sorted(shapes)}.")
    for column in columns:
        if len(column.images) != len(rows):
            raise UserError(
                f"Column {column.caption!r} has {len(column.images)} images for {len(rows)} rows."
            )


def _cell(image: Float[np.ndarray, "height width 3"], size: tuple[int, int]) -> Image.Image:
    pixels = Image.fromarray(to_uint8(image))
    return pixels if pixels.size == size else pixels.resize(size, Image.Resampling.LANCZOS)


def _label_width(
    rows: Sequence[Row], title: ImageFont.FreeTypeFont, text: ImageFont.FreeTypeFont, limit: int
) -> int:
    """Width of the row headings in pixels: at most `limit`, unless a single word is wider."""
    widths = [title.getlength(row.title) for row in rows]
    widths += [text.getlength(line) for row in rows for line in _wrap(row.detail, text, limit)]
    return round(max(widths)) + _MARGIN


def _draw_label(
    draw: ImageDraw.ImageDraw,
    row: Row,
    middle: int,
    width: int,
    title: ImageFont.FreeTypeFont,
    text: ImageFont.FreeTypeFont,
) -> None:
    lines = _wrap(row.detail, text, width)
    step = round(text.size * 1.35)
    y = middle - (round(title.size * 1.35) + step * len(lines)) // 2
    draw.text((_MARGIN, y), row.title, fill=INK, font=title)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, y + round(title.size * 1.45) + number * step), line, fill=_FAINT, font=text)


def _draw_groups(
    draw: ImageDraw.ImageDraw, columns: Sequence[Column], left: int, width: int, font: ImageFont.FreeTypeFont
) -> None:
    """A heading with a thin line over each run of columns of one group."""
    start = 0
    while start < len(columns):
        end = start
        while end + 1 < len(columns) and columns[end + 1].group == columns[start].group:
            end += 1
        if columns[start].group:
            x0, x1 = left + start * (width + _GAP), left + end * (width + _GAP) + width
            y = _MARGIN + round(font.size * 1.2)
            draw.text(((x0 + x1) // 2, _MARGIN - 4), columns[start].group, fill=INK, font=font, anchor="ma")
            draw.line([(x0 + 4, y), (x1 - 4, y)], fill=(210, 212, 216), width=1)
        start = end + 1


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break text between words into lines of at most `width` pixels (a longer word stands alone)."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines
