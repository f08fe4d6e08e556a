"""A view's canonical map on a regular grid as a surface: how it runs from cell to cell, and where between cells a point lies.

Cells are numbered row by row; places on the grid are in cells, with the centre of the first at (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int64
from scipy.ndimage import uniform_filter

_TORN = 2.5
"""Neighbours farther apart than this many times the spacing lie on two surfaces."""
_REACH = 0.75
"""How far (in cells, each way) a point may lie from the centre of its nearest cell."""
_SMALLEST = 1e-10
"""Area of a cell in square metres (a hundredth of a millimetre each way) below which all count as equally large."""
_SKEWEST = 0.05
"""Squared sine of the angle between the directions to the right and down, below which they fix no place between cells."""


@dataclass(frozen=True)
class SurfaceGrid:
    """What the cells of one view show."""

    position: Float[np.ndarray, "height width 3"]
    """Metres on the canonical head; NaN where a cell shows none."""
    spacing: Float[np.ndarray, "height width"]
    """Distance to the neighbours on the same surface, metres; NaN where `position` is."""

    @cached_property
    def across(self) -> Float[np.ndarray, "height width 3"]:
        """How the position changes from a cell to the right, metres; 0 where no neighbour is on the same surface."""
        return self._slope(1)

    @cached_property
    def down(self) -> Float[np.ndarray, "height width 3"]:
        """The same downwards."""
        return self._slope(0)

    @cached_property
    def density(self) -> Float[np.ndarray, "height width"]:
        """Cells per square metre of surface: the more, the closer and the more frontally it is seen. 0 where nothing is."""
        area = np.linalg.norm(np.cross(self.across, self.down), axis=-1)
        # Of hair, whose places are uncertain, the slopes are too.
        total, count = uniform_filter(area, 3), uniform_filter((area > 0).astype(np.float64), 3)
        known = count > 0.05  # one of nine, and not a running sum's rounding error
        area = np.where(known, total / np.where(known, count, 1.0), np.nan_to_num(self.spacing, nan=1.0) ** 2)
        # Several cells of one place have no area: maps smaller than the grid.
        return np.where(self._shown, 1 / np.maximum(area, _SMALLEST), 0.0)

    @cached_property
    def solid(self) -> Float[np.ndarray, "height width"]:
        """How wholly a cell and those around it show one surface: 1 away from all edges, falling to 0 at them."""
        joined = np.zeros(self._shown.shape)
        for row, column in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            joined += self._connected(row, column)
        return np.where(self._shown, (2 * uniform_filter(joined / 4, 3, mode="nearest") - 1).clip(0, 1), 0.0)

    @cached_property
    def _shown(self) -> np.ndarray:
        return np.isfinite(self.position).all(axis=-1)

    def _connected(self, row: int, column: int) -> np.ndarray:
        """Whether the neighbour in a direction lies on the same surface; beyond the border of the grid all goes on."""
        padded = np.pad(self.position, ((1, 1), (1, 1), (0, 0)), mode="edge")
        height, width = self._shown.shape
        other = padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]
        return np.linalg.norm(other - self.position, axis=-1) <= _TORN * self.spacing  # False for NaN

    def _slope(self, axis: int) -> np.ndarray:
        """Mean of the steps to both neighbours, as far as they are on the same surface."""
        total, count = np.zeros(self.position.shape), np.zeros(self._shown.shape)
        for sign in (-1, 1):
            step = (sign, 0) if axis == 0 else (0, sign)
            joined = self._connected(*step)
            if axis == 0:
                joined[0 if sign < 0 else -1] = False
            else:
                joined[:, 0 if sign < 0 else -1] = False
            change = sign * (np.roll(self.position, (-step[0], -step[1]), (0, 1)) - self.position)
            total += np.where(joined[..., None], change, 0.0)
            count += joined
        return total / count.clip(min=1)[..., None]


@dataclass(frozen=True)
class Corners:
    """Points of a surface between the cells of a grid that shows it: bilinear interpolation."""

    index: Int64[np.ndarray, "points 4"]
    """The cells around each point."""
    share: Float[np.ndarray, "points 4"]
    """Their weights, which sum to 1; 0 for cells of another surface."""


def corners(
    grid: SurfaceGrid, points: Float[np.ndarray, "points 3"], nearest: Int64[np.ndarray, " points"]
) -> Corners:
    """Where points of the surface lie between the cells.

    From the nearest cell's centre the surface is followed along its slopes: with the slopes g_x, g_y the place (u, v) in cells is
    the least-squares solution of u g_x + v g_y = point - centre.

    Args:
        grid: the view's.
        points: on the surface, metres on the canonical head.
        nearest: the cell nearest to each of them, which shows the point.
    """
    height, width = grid.spacing.shape
    place = _between(grid, points, nearest)
    first = np.floor(place)
    fraction = place - first
    index, share = np.empty((len(points), 4), np.int64), np.empty((len(points), 4))
    position, reach = grid.position.reshape(-1, 3), _TORN * grid.spacing.reshape(-1)[nearest]
    for corner, (dx, dy) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        x, y = first[:, 0].astype(int) + dx, first[:, 1].astype(int) + dy
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        index[:, corner] = y.clip(0, height - 1) * width + x.clip(0, width - 1)
        near = np.linalg.norm(position[index[:, corner]] - points, axis=1) <= reach  # False for NaN
        bilinear = np.abs(1 - dx - fraction[:, 0]) * np.abs(1 - dy - fraction[:, 1])
        share[:, corner] = bilinear * (inside & near)
    return Corners(index, share / share.sum(axis=1, keepdims=True))


def _between(
    grid: SurfaceGrid, points: Float[np.ndarray, "points 3"], nearest: Int64[np.ndarray, " points"]
) -> Float[np.ndarray, "points 2"]:
    """(x, y) of points in cells."""
    width = grid.spacing.shape[1]
    centre = np.stack([nearest % width, nearest // width], axis=1).astype(np.float64)
    gx, gy = (slope.reshape(-1, 3)[nearest].astype(np.float64) for slope in (grid.across, grid.down))
    away = points - grid.position.reshape(-1, 3)[nearest]
    xx, xy, yy = (gx * gx).sum(1), (gx * gy).sum(1), (gy * gy).sum(1)
    determinant = xx * yy - xy * xy
    known = determinant > _SKEWEST * xx * yy
    safe = np.where(known, determinant, 1.0)
    bx, by = (gx * away).sum(1), (gy * away).sum(1)
    offset = np.stack([(yy * bx - xy * by) / safe, (xx * by - xy * bx) / safe], axis=1)
    return centre + np.where(known[:, None], offset.clip(-_REACH, _REACH), 0.0)
