"""Where the tokens of an attention layer lie in an image, and what they show.

A token is a cell of a regular grid over the canvas that the diffusion model takes (see `Frame`). Token coordinates: x to the
    right, y down, one unit a cell; the centre of the first cell is at (0.5, 0.5), as with pixels. Tokens are numbered row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from edit3dgs_ns.editing.framing import Frame

_SAMPLES = 4
"""Points looked up along each side of a cell; 16 of them decide what it shows."""
_NEEDED = 0.5
"""A token shows the head when at least this share of its cell does."""
_NEAR, _TINY = 2.0, 1e-6
"""Samples at most so many times as far from their median as half of them are show one surface; metres for a flat cell."""
_STEEPEST = 2.0
"""Where a surface is seen at a slant its tokens lie far apart, up to this many times the usual distance; beyond, it is an edge."""


def tokens_from_pixels(frame: Frame, grid: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
    """The affine map from pixels of the image to token coordinates of a (rows, columns) grid, homogeneous."""
    left, _, top, _ = frame.margins
    result = np.eye(3)
    for axis, margin, size in ((0, left, 1), (1, top, 0)):
        tokens_per_canvas_pixel = grid[size] / frame.canvas[size]
        result[axis, axis] = tokens_per_canvas_pixel * frame.scaled[size] / frame.image[size]
        result[axis, 2] = tokens_per_canvas_pixel * margin
    return result


def token_centres(grid: tuple[int, int]) -> Float[np.ndarray, "tokens 2"]:
    """(x, y) of every token."""
    y, x = np.mgrid[: grid[0], : grid[1]]
    return np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5


@dataclass(frozen=True)
class TokenPlaces:
    """What the tokens of several views show."""

    position: Float[np.ndarray, "views tokens 3"]
    """A point of the surface that the token shows, metres on the canonical head; NaN where it shows none."""
    spacing: Float[np.ndarray, "views tokens"]
    """Distance to the neighbouring tokens on the same surface, metres; NaN where `position` is."""


def token_places(
    canonical: Float[np.ndarray, "views height width 3"], frame: Frame, grid: tuple[int, int]
) -> TokenPlaces:
    """Carry canonical maps from pixels to tokens.

    Averaging positions across a cell would make up points between two surfaces (nose and cheek): a token takes the mean of
    those samples that lie near their median.

    Args:
        canonical: position of what every pixel shows, metres; NaN where nothing.
        frame: how the images lie in the canvas.
        grid: rows and columns of the layer.
    """
    samples = torch.from_numpy(_sampled(canonical, frame, grid))
    valid = samples.isfinite().all(dim=-1)
    median = samples.nanmedian(dim=2, keepdim=True).values  # torch's is many times faster than NumPy's
    distance = (samples - median).norm(dim=-1)
    near = distance <= _NEAR * distance.nanmedian(dim=2, keepdim=True).values + _TINY
    position = torch.where(near[..., None], samples, torch.nan).nanmean(dim=2).numpy()
    position[valid.float().mean(dim=2).numpy() < _NEEDED] = np.nan
    return TokenPlaces(position, _spacing(position, grid))


def _sampled(
    canonical: Float[np.ndarray, "views height width 3"], frame: Frame, grid: tuple[int, int]
) -> Float[np.ndarray, "views tokens samples 3"]:
    """The map at `_SAMPLES` x `_SAMPLES` points of every cell; NaN in the padding."""
    height, width = canonical.shape[1:3]
    scale = tokens_from_pixels(frame, grid)
    inside = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    columns, rows = (
        np.floor(((np.arange(grid[1 - axis])[:, None] + inside) - scale[axis, 2]) / scale[axis, axis]).astype(
            int
        )
        for axis in (0, 1)
    )
    y, x = np.broadcast_arrays(rows[:, None, :, None], columns[None, :, None, :])
    shape = (grid[0] * grid[1], _SAMPLES * _SAMPLES)
    y, x = y.reshape(shape), x.reshape(shape)
    padding = (y < 0) | (y >= height) | (x < 0) | (x >= width)
    result = canonical[:, y.clip(0, height - 1), x.clip(0, width - 1)].astype(np.float32)
    result[:, padding] = np.nan
    return result


def _spacing(
    position: Float[np.ndarray, "views tokens 3"], grid: tuple[int, int]
) -> Float[np.ndarray, "views tokens"]:
    """The largest distance to the four neighbours, between the usual distance of the view and `_STEEPEST` times it."""
    views = len(position)
    image = position.reshape(views, *grid, 3)
    result = np.full((views, *grid), np.nan, np.float32)
    usual = np.full((views, 1), np.nan, np.float32)
    steps = [np.linalg.norm(np.diff(image, axis=axis), axis=-1) for axis in (1, 2)]
    for view in range(views):
        known = np.concatenate([step[view].ravel() for step in steps])
        known = known[np.isfinite(known)]
        usual[view] = np.median(known) if known.size else np.nan
    down, across = steps
    for at, step in (
        (np.s_[:, 1:], down), (np.s_[:, :-1], down), (np.s_[:, :, 1:], across), (np.s_[:, :, :-1], across),
    ):  # fmt: skip
        result[at] = np.fmax(result[at], step)
    shown = np.isfinite(position).all(axis=-1)
    flat = np.fmax(result.reshape(views, -1), usual).clip(usual, _STEEPEST * usual)
    return np.where(shown, flat, np.nan)
