"""What this machine could do at best: the arithmetic of a (pixel, Gaussian) pair and nothing else.

One polynomial exp and about 20 multiply-adds a pair forward; backward one exp, one division (by 1 - alpha) and about 40
multiply-adds. In vectors of 16 pixels, over one tile that stays in the first-level cache: no sorting, no varying numbers of
rows, no waiting for memory, no dependence of a pair on the one before.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from edit3dgs_ns.splats.jit import kernel
from edit3dgs_ns.splats.simd import LANES, cache_line_start, exp_of_minus_8, load, splat, store
from tools.measure.benchmarks.common import cpu_seconds

PIXELS = 128
"""One tile."""


@kernel()
def _forward_pairs(gaussians, tile):
    """exp and 20 multiply-adds, in four independent chains, for every pixel of the tile and every Gaussian."""
    dt = tile.dtype.type
    start = cache_line_start(tile)
    for i in range(gaussians):
        shift = splat(dt(i) * dt(1e-9))
        for at in range(start, start + PIXELS, LANES):
            e = exp_of_minus_8(load(tile, at) + shift)
            x = load(tile, at + PIXELS)
            a, b, c, d = x * e + e, e * x + x, x * e + x, e * e + x
            for _ in range(4):
                a, b, c, d = a * x + e, b * e + x, c * e + x, d * x + e
            store(tile, at + PIXELS, (a + b + (c + d)) * splat(dt(0.01)))


@kernel()
def _backward_pairs(gaussians, tile):
    """exp, one division and 40 multiply-adds."""
    dt = tile.dtype.type
    start = cache_line_start(tile)
    one = splat(dt(1))
    for i in range(gaussians):
        shift = splat(dt(i) * dt(1e-9))
        for at in range(start, start + PIXELS, LANES):
            e = exp_of_minus_8(load(tile, at) + shift)
            x = load(tile, at + PIXELS)
            a, b, c, d = x * e + e, e * x + x, x * e + x, e * e + x
            for _ in range(9):
                a, b, c, d = a * x + e, b * e + x, c * e + x, d * x + e
            store(tile, at + PIXELS, (a + b + c / (one + d)) * splat(dt(0.01)))


def limit_ns_per_pair(direction: str, gaussians: int = 20_000) -> float:
    """Nanoseconds that one core needs for a pair "forward" or "backward" at best (float32)."""
    pairs = {"forward": _forward_pairs, "backward": _backward_pairs}[direction]
    tile = np.full(2 * PIXELS + LANES, 0.1, np.float32)
    run = partial(pairs, gaussians, tile)
    run()  # compiles
    return cpu_seconds(run, 15) / (gaussians * PIXELS) * 1e9
