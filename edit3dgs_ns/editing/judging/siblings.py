"""Compares the edited views of a batch where they show the same surface points of the head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import uniform_filter

_CELL = 0.006
"""Side in metres of the cubes that surface points on the canonical head are gathered in."""
_LEAST_PIXELS = 3
_LEAST_CELLS = 30
"""Views with fewer cells in common are not compared."""
_LEAST_VIEWS = 3
"""Of two views that differ none is known to be the wrong one."""


class SharedCells:
    """Mean colours of the views of a batch in small cells of the canonical head.

    Args:
        canonical: rest position of what every pixel shows, metres; NaN for nothing.
    """

    def __init__(self, canonical: Float[np.ndarray, "views height width 3"]):
        shown = np.isfinite(canonical).all(axis=-1)
        number = np.floor(canonical[shown] / _CELL).astype(np.int64)
        _, cell = np.unique(number, axis=0, return_inverse=True)
        self._shown, self._cell = shown, cell.reshape(-1)
        self._view = np.nonzero(shown)[0]
        self._size = (len(canonical), int(self._cell.max()) + 1 if len(self._cell) else 0)
        self._pixels = self._sum(np.ones(len(self._cell)))

    def colors(self, images: Float[np.ndarray, "views height width 3"]) -> Float[np.ndarray, "views cells 3"]:
        """Mean colour of every view in every cell; NaN where it shows too little of one."""
        values = images[self._shown]
        sums = np.stack([self._sum(values[:, k]) for k in range(3)], axis=-1)
        known = self._pixels >= _LEAST_PIXELS
        return np.where(known[..., None], sums / np.maximum(self._pixels, 1)[..., None], np.nan)

    def _sum(self, values: Float[np.ndarray, " pixels"]) -> Float[np.ndarray, "views cells"]:
        flat = self._view * self._size[1] + self._cell
        return np.bincount(flat, values, self._size[0] * self._size[1]).reshape(self._size)


def distances(
    colors: Float[np.ndarray, "views cells 3"], usable: Bool[np.ndarray, " views"]
) -> list[float | None]:
    """How far each view's colours are, as a whole, from those of its siblings at the same places; None where that is unknown.

    The mean over the cells of the signed difference to the median of the other views: light that falls from one side, detail and
    noise cancel, another colour does not.

    Args:
        colors: from `SharedCells.colors`.
        usable: views that may stand for the others.
    """
    result: list[float | None] = []
    for view in range(len(colors)):
        others = [other for other in np.flatnonzero(usable) if other != view]
        if len(others) < _LEAST_VIEWS - 1:
            result.append(None)
            continue
        common = np.isfinite(colors[view, :, 0]) & np.isfinite(colors[others][..., 0]).any(axis=0)
        if common.sum() < _LEAST_CELLS:
            result.append(None)
            continue
        median = np.nanmedian(colors[np.ix_(others, np.flatnonzero(common))], axis=0)
        difference = colors[view, common] - median
        result.append(float(np.abs(difference.mean(axis=0)).max()))
    return result


def expected_change(
    changes: Float[np.ndarray, "views height width"],
    canonical: Float[np.ndarray, "views height width 3"],
    view: int,
    others: Sequence[int],
) -> float:
    """How much the other views changed, at most, on what this view shows too; 0 where nothing is known.

    The 98th percentile over the common cells.
    """
    cells = SharedCells(canonical)
    amounts = cells.colors(np.repeat(changes[..., None], 3, axis=-1))[..., 0]
    shown = np.isfinite(amounts[view])
    seen = amounts[list(others)][:, shown]
    known = seen[:, np.isfinite(seen).any(axis=0)] if len(others) else seen[:, :0]
    if not known.size:
        return 0.0
    return float(np.percentile(np.nanmax(known, axis=0), 98))


def low_change(
    original: Float[np.ndarray, "height width 3"], edited: Float[np.ndarray, "height width 3"]
) -> Float[np.ndarray, "height width"]:
    """Change of every pixel without fine detail, which an autoencoder changes by itself."""
    size = max(3, round(max(original.shape) / 32))
    difference = edited.astype(np.float32) - original
    smooth = np.stack([uniform_filter(difference[..., k], size, mode="nearest") for k in range(3)], axis=-1)
    return np.abs(smooth).max(axis=-1)
