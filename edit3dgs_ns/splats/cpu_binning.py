"""Which Gaussian touches which tile of the image, front to back.

Per camera: a radix sort of the visible Gaussians by depth, then one counting sort of (Gaussian, tile) pairs
by tile, stable, so that every tile lists its Gaussians by depth. A pair exists only where some pixel row of
the tile can reach an opacity of 1/255: the ellipse of that level is intersected with the tile's band of rows
exactly.

Like gsplat, a Gaussian is never drawn beyond the 16 x 16 tiles that the square of its radius (3 sigma)
touches.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from edit3dgs_ns.splats.jit import kernel

TILE_WIDTH = 16
TILE_HEIGHT = 8
GSPLAT_TILE = 16
CHUNKS = 8
"""Parts of a camera's Gaussians that are counted and scattered independently of each other."""

RECORD = 8
"""Numbers in a record before the channels: x, y, A, B, C, opacity, first and last row that can be reached."""

_FAR = 100_000_000.0
"""Pixels: keeps the places of absurdly large Gaussians within the range of integers."""


@kernel()
def _sort_by_depth(keys, radii, order, scratch, bits):
    """Write the indices of visible Gaussians to `order`, by ascending key (stable); returns how many."""
    visible = 0
    for n in range(keys.shape[0]):
        if radii[n] > 0:
            order[visible] = n
            visible += 1
    source, target = order, scratch
    starts = np.empty(2048, np.int64)
    for shift in range(0, bits, 11):
        starts[:] = 0
        for i in range(visible):
            starts[(keys[source[i]] >> shift) & 2047] += 1
        total = 0
        for digit in range(2048):
            here = starts[digit]
            starts[digit] = total
            total += here
        for i in range(visible):
            digit = (keys[source[i]] >> shift) & 2047
            target[starts[digit]] = source[i]
            starts[digit] += 1
        source, target = target, source
    if bits // 11 % 2 == 0:  # an odd number of passes (32 bits: 3); 64 bits take 6
        order[:visible] = source[:visible]
    return visible


@kernel()
def depth_order(keys, radii, order, visible, bits):
    """Fill order (C, N) and visible (C,) from the depths' bit patterns (C, N), which sort like the depths."""
    for c in range(keys.shape[0]):  # 3 ns per Gaussian: less than it costs to wake the other threads
        visible[c] = _sort_by_depth(keys[c], radii[c], order[c], np.empty_like(order[c]), bits)


@kernel()
def _fill_record(x, y, A, B, C, opacity, record, ellipse):
    """Write one Gaussian's record and its ellipse; the rows are empty where it is too faint to be seen
    anywhere.

    The ellipse A dx^2 + 2 B dx dy + C dy^2 = level is where the opacity falls to 1/255, and a little beyond.
    Written as level, determinant, |dy| of the leftmost and rightmost point, and 1 / A; level 0 stands for no
    bound at all.
    """
    dt = record.dtype.type
    record[0], record[1], record[2], record[3], record[4], record[5] = x, y, A, B, C, opacity
    record[6], record[7] = dt(1), dt(-1)
    if not opacity * dt(255) >= dt(1):
        return
    level = dt(2) * math.log(opacity * dt(255)) + dt(1e-3)
    det = A * C - B * B
    ellipse[0] = dt(0)
    record[6], record[7] = dt(-_FAR), dt(_FAR)
    if det > dt(1e-30) and dt(1e-15) < C:
        ellipse[0], ellipse[1], ellipse[2], ellipse[3] = (
            level,
            det,
            B * math.sqrt(level / (C * det)),
            dt(1) / A,
        )
        half = math.sqrt(level * A / det)
        record[6], record[7] = max(y - half - dt(0.5), dt(-_FAR)), min(y + half - dt(0.5), dt(_FAR))


@kernel()
def _columns(record, ellipse, top, bottom):
    """First and last pixel column (fractional) that the visible ellipse reaches in the rows top..bottom."""
    dt = record.dtype.type
    level, det, widest, inverse = ellipse[0], ellipse[1], ellipse[2], ellipse[3]
    if level == dt(0):
        return dt(-_FAR), dt(_FAR)
    A, B = record[2], record[3]
    y = record[1] - dt(0.5)
    dy_right = min(max(-widest, top - y), bottom - y)
    dy_left = min(max(widest, top - y), bottom - y)
    right = (-B * dy_right + math.sqrt(max(dt(0), level * A - det * dy_right * dy_right))) * inverse
    left = (-B * dy_left - math.sqrt(max(dt(0), level * A - det * dy_left * dy_left))) * inverse
    return record[0] - dt(0.5) + left, record[0] - dt(0.5) + right


@kernel()
def _bands(record, radius, height):
    """First and last + 1 tile row that the Gaussian touches."""
    dt = record.dtype.type
    reach = min(dt(radius), dt(_FAR))
    low = max(math.floor((record[1] - reach) / dt(GSPLAT_TILE)) * GSPLAT_TILE, 0)
    high = min(math.ceil((record[1] + reach) / dt(GSPLAT_TILE)) * GSPLAT_TILE, height)
    first = max(math.ceil(max(record[6], dt(-1))), low)
    last = min(math.floor(min(record[7], dt(height))), high - 1)
    if first > last:
        return 0, 0
    return int(first) // TILE_HEIGHT, int(last) // TILE_HEIGHT + 1


@kernel()
def _tiles_in_band(record, ellipse, radius, band, width, height):
    """First and last + 1 tile column that the Gaussian touches in one tile row."""
    dt = record.dtype.type
    reach = min(dt(radius), dt(_FAR))
    low = max(math.floor((record[0] - reach) / dt(GSPLAT_TILE)) * GSPLAT_TILE, 0)
    high = min(math.ceil((record[0] + reach) / dt(GSPLAT_TILE)) * GSPLAT_TILE, width)
    top = max(dt(band * TILE_HEIGHT), record[6])
    bottom = min(dt(min((band + 1) * TILE_HEIGHT, height) - 1), record[7])
    left, right = _columns(record, ellipse, top, bottom)
    first = max(math.ceil(max(left, dt(-1))), low)
    last = min(math.floor(min(right, dt(width))), high - 1)
    if first > last:
        return 0, 0
    return int(first) // TILE_WIDTH, int(last) // TILE_WIDTH + 1


@kernel(parallel=True)
def count_pairs(
    order,
    visible,
    radii,
    means2d,
    conics,
    opacities,
    colors,
    width,
    height,
    records,
    ellipses,
    pairs_of,
    histogram,
):
    """Gather records (C, N, RECORD + D) and ellipses (C, N, 4) in depth order, and count pairs.

    Fills pairs_of (C, N): pairs of the i-th Gaussian by depth; histogram (C, CHUNKS, tiles): pairs per chunk
    and tile.
    """
    cameras = radii.shape[0]
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    channels = colors.shape[2]
    for job in prange(cameras * CHUNKS):
        c = job // CHUNKS
        chunk = job - c * CHUNKS
        histogram[c, chunk] = 0
        for i in range(visible[c] * chunk // CHUNKS, visible[c] * (chunk + 1) // CHUNKS):
            n = order[c, i]
            record = records[c, i]
            _fill_record(
                means2d[c, n, 0], means2d[c, n, 1], conics[c, n, 0], conics[c, n, 1], conics[c, n, 2],
                opacities[c, n], record, ellipses[c, i],
            )  # fmt: skip
            for k in range(channels):
                record[RECORD + k] = colors[c, n, k]
            for k in range(RECORD + channels, records.shape[2]):
                record[k] = record.dtype.type(0)
            total = 0
            first_band, last_band = _bands(record, radii[c, n], height)
            for band in range(first_band, last_band):
                first, last = _tiles_in_band(record, ellipses[c, i], radii[c, n], band, width, height)
                total += last - first
                for column in range(first, last):
                    histogram[c, chunk, band * columns + column] += 1
            pairs_of[c, i] = total


@kernel()
def scan_pairs(visible, pairs_of, histogram, first_slot, tile_start):
    """Turn counts into places.

    Fills first_slot (C, N + 1), numbering pairs Gaussian by Gaussian; tile_start (C * tiles + 1), numbering
    them tile by tile; and replaces each count of the histogram by the place of that chunk's first pair in
    that tile.
    """
    cameras, chunks, tiles = histogram.shape
    slot = 0
    place = 0
    for c in range(cameras):
        for i in range(visible[c]):
            first_slot[c, i] = slot
            slot += pairs_of[c, i]
        first_slot[c, visible[c]] = slot
        for tile in range(tiles):
            tile_start[c * tiles + tile] = place
            for chunk in range(chunks):
                here = histogram[c, chunk, tile]
                histogram[c, chunk, tile] = place
                place += here
    tile_start[cameras * tiles] = place
    return slot


@kernel(parallel=True)
def scatter_pairs(
    order, visible, radii, records, ellipses, width, height, first_slot, histogram, pair_rank, pair_slot
):
    """Fill pair_rank and pair_slot (pairs,): the depth rank and the slot of each pair, tile by tile, front to
    back."""
    cameras = radii.shape[0]
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    for job in prange(cameras * CHUNKS):
        c = job // CHUNKS
        chunk = job - c * CHUNKS
        for i in range(visible[c] * chunk // CHUNKS, visible[c] * (chunk + 1) // CHUNKS):
            record = records[c, i]
            slot = first_slot[c, i]
            radius = radii[c, order[c, i]]
            first_band, last_band = _bands(record, radius, height)
            for band in range(first_band, last_band):
                first, last = _tiles_in_band(record, ellipses[c, i], radius, band, width, height)
                for column in range(first, last):
                    place = histogram[c, chunk, band * columns + column]
                    histogram[c, chunk, band * columns + column] = place + 1
                    pair_rank[place] = i
                    pair_slot[place] = slot
                    slot += 1
