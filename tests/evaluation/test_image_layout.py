"""Places and sizes of images in a frame."""

from __future__ import annotations

import numpy as np

from edit3dgs_ns.evaluation.image_layout import resized, side_by_side, tiled, title_bar


def plain(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_images_side_by_side_have_one_height() -> None:
    row = side_by_side([plain(20, 10, 0), plain(40, 60, 200)], 40)
    assert row.shape == (40, 20 + 60, 3)
    assert (row[:, :20] == 0).all() and (row[:, 20:] == 200).all()
    assert resized(plain(20, 10, 3), 20) is not None and resized(plain(30, 10, 3), 15).shape == (15, 5, 3)


def test_tiles_are_nearly_square_and_white_where_nothing_is() -> None:
    cells = tiled([plain(4, 6, value) for value in (10, 20, 30, 40, 50)])
    assert cells.shape == (2 * 4, 3 * 6, 3)
    assert [int(cells[0, 6 * k, 0]) for k in range(3)] == [10, 20, 30]
    assert [int(cells[4, 6 * k, 0]) for k in range(3)] == [40, 50, 255]
    assert tiled([plain(4, 6, 1)]).shape == (4, 6, 3)


def test_a_title_bar_has_one_title_over_each_image() -> None:
    strip = title_bar(["driver", "avatar"], [100, 300])
    assert strip.shape[1] == 400 and strip.shape[0] % 2 == 0
    for left, right in ((0, 100), (100, 400)):
        ink = np.flatnonzero((strip[:, left:right] < 128).any(axis=(0, 2)))
        assert abs((ink[0] + ink[-1]) / 2 - (right - left) / 2) < 5
