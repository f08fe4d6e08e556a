"""The comparison grid shows every image in its row and column, unchanged, on white."""

from __future__ import annotations

import numpy as np
import pytest

from edit3dgs_ns.evaluation.comparison_grid import Column, Row, draw_comparison_grid

ROWS = [Row("Before"), Row("After", "“Make him look older”")]


def flat(value: float, height: int = 40, width: int = 32) -> np.ndarray:
    return np.full((height, width, 3), value, np.float32)


def test_every_image_is_in_its_row_and_column() -> None:
    values = np.array([[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]])
    columns = [Column(f"c{c}", [flat(values[r, c]) for r in range(2)], group="views") for c in range(3)]
    grid = np.asarray(draw_comparison_grid(columns, ROWS, cell_width=32))
    centres = np.zeros((2, 3, 2))
    for r in range(2):
        for c in range(3):
            place = np.argwhere((grid == round(values[r, c] * 255)).all(axis=-1))
            # Anti-aliased text may hold the same grey here and there; the image is a full block of it.
            assert len(place) >= 40 * 32
            centres[r, c] = np.median(place, axis=0)
    assert (np.diff(centres[:, :, 0], axis=0) > 40).all()
    assert (np.diff(centres[:, :, 1], axis=1) > 32).all()


def test_background_is_white_and_there_are_captions() -> None:
    columns = [Column("front", [flat(1.0), flat(1.0)])]
    grid = np.asarray(draw_comparison_grid(columns, ROWS, cell_width=128))
    assert (grid[0] == 255).all() and (grid[:, -1] == 255).all()
    assert (grid < 128).any()


def test_cells_keep_the_shape_of_the_images() -> None:
    tall = draw_comparison_grid([Column("a", [flat(0.5, 80, 40)])], [ROWS[0]], cell_width=64)
    wide = draw_comparison_grid([Column("a", [flat(0.5, 40, 80)])], [ROWS[0]], cell_width=64)
    assert tall.height - wide.height == 128 - 32
    assert tall.width == wide.width


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="columns and rows"):
        draw_comparison_grid([], ROWS)
    with pytest.raises(ValueError, match="1 images for 2 rows"):
        draw_comparison_grid([Column("a", [flat(0)])], ROWS)
    with pytest.raises(ValueError, match="one size"):
        draw_comparison_grid([Column("a", [flat(0), flat(0, 8, 8)])], ROWS)
