"""How many (pixel, Gaussian) pairs the CPU rasterizer evaluates, and how many of them contribute to the image."""

from __future__ import annotations

import math

import numpy as np

from edit3dgs_ns.splats.cpu_binning import (
    A_16,
    B_8,
    C_16,
    OPACITY,
    PAIR_SHIFT,
    TILE_HEIGHT,
    TILE_WIDTH,
    X,
    Y,
)
from edit3dgs_ns.splats.jit import kernel


@kernel()
def count_pairs(records, tile_start, tile_stop, pairs, width, height):
    """Pairs of one image: (evaluated, contributing), for the pairs tile_start[tile]..tile_stop[tile] of every tile.

    Evaluated: a row of a tile is evaluated as a whole, 16 pixels, for every Gaussian that may reach an opacity of 1/255 in it,
    until all pixels of the tile have ended. Contributing: at least 1/255 opaque there, in a pixel that has not ended.
    """
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    open_ = np.empty((TILE_HEIGHT, TILE_WIDTH))
    rows = contributing = 0
    for tile in range(tile_stop.shape[0]):
        top, left = tile // columns * TILE_HEIGHT, tile % columns * TILE_WIDTH
        for row in range(TILE_HEIGHT):
            for i in range(TILE_WIDTH):
                open_[row, i] = 1.0 if top + row < height and left + i < width else -1.0
        for place in range(tile_start[tile], tile_stop[tile]):
            pair = pairs[place]
            record = records[0, pair >> PAIR_SHIFT]
            for row in range(pair >> 3 & 7, (pair & 7) + 1):
                rows += 1
                for i in range(TILE_WIDTH):
                    dx, dy = left + i + 0.5 - record[X], top + row + 0.5 - record[Y]
                    sigma = 8 * (record[A_16] * dx * dx + record[C_16] * dy * dy + record[B_8] * dx * dy)
                    alpha = min(0.999, record[OPACITY] * math.exp(-sigma))
                    if open_[row, i] > 0 and alpha >= 1 / 255:
                        rest = open_[row, i] * (1 - alpha)
                        open_[row, i] = rest if rest > 1e-4 else -1.0
                        contributing += 1 if rest > 1e-4 else 0
            if (place - tile_start[tile]) % 16 == 15 and open_.max() < 0:
                break
    return rows * TILE_WIDTH, contributing
