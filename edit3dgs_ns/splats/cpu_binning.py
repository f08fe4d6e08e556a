"""Which Gaussian touches which tile of the image, front to back.

Per camera: a radix sort of the visible Gaussians by depth, then one counting sort of (Gaussian, tile) pairs
by tile, stable, so that every tile lists its Gaussians by depth. A pair exists only where some pixel row of
the tile can reach an opacity of 1/255: the ellipse of that level is intersected with the tile's band of rows
exactly.

Like gsplat, a Gaussian is never drawn beyond the 16 x 16 tiles that the square of its radius (3 sigma)
touches.

Steps: `depth_order`, `fill_records`, `scan_bands`, `find_spans`, `scan_pairs`, `scatter_pairs`. A span is the
run of tiles that a Gaussian touches in one band (a row of tiles).
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

X, Y, A_16, B_8, C_16, OPACITY = 0, 1, 2, 3, 4, 5
"""Places in a record: mean, conic (A/16, B/8, C/16: what sigma/8 is made of), opacity."""
TOP, BOTTOM, LEFT, RIGHT = 6, 7, 8, 9
"""First and last pixel row that is reached, first and last column that may be."""
_P, _Q, _WIDEST = 10, 11, 12
"""The ellipse: see `_columns`."""
RECORD = 13
"""Numbers in a record before the channels; with three of them it is one cache line."""

PAIR_SHIFT = 6
"""A pair is an integer: the Gaussian's rank by depth, 3 bits for the first row of the tile that it reaches, 3 bits for
the last."""

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
def depth_order(keys, radii, order, ranks, visible, bits):
    """Fill order (C, N) and visible (C,) from the depths' bit patterns (C, N), which sort like the depths.

    Fills ranks (C, N) as well, the inverse of `order`; only those of visible Gaussians.
    """
    for c in range(keys.shape[0]):  # 3 ns per Gaussian: less than it costs to wake the other threads
        visible[c] = _sort_by_depth(keys[c], radii[c], order[c], np.empty_like(order[c]), bits)
        for i in range(visible[c]):
            ranks[c, order[c, i]] = i


@kernel()
def _fill_ellipse(x, y, A, B, C, opacity, radius, width, height, record):
    """Write the rows and columns that one Gaussian reaches; no row where it is too faint to be visible.

    The ellipse A dx^2 + 2 B dx dy + C dy^2 = level is where the opacity falls to 1/255, and a little beyond.
    """
    dt = record.dtype.type
    record[TOP], record[BOTTOM] = dt(1), dt(0)
    if not opacity * dt(255) >= dt(1):
        return
    reach = min(dt(radius), dt(_FAR))
    tile = dt(GSPLAT_TILE)
    top = max(math.floor((y - reach) / tile) * tile, dt(0))
    bottom = min(math.ceil((y + reach) / tile) * tile, dt(height)) - dt(1)
    record[LEFT] = max(math.floor((x - reach) / tile) * tile, dt(0))
    record[RIGHT] = min(math.ceil((x + reach) / tile) * tile, dt(width)) - dt(1)
    level = dt(2) * math.log(opacity * dt(255)) + dt(1e-3)
    det = A * C - B * B
    record[_P] = record[_Q] = record[_WIDEST] = dt(0)
    if det > dt(1e-30) and dt(1e-15) < C:
        inverse = dt(1) / A
        record[_P] = level * inverse
        record[_Q] = det * inverse * inverse
        record[_WIDEST] = B * math.sqrt(level / (C * det))
        half = math.sqrt(level * A / det)
        top, bottom = max(y - half - dt(0.5), top), min(y + half - dt(0.5), bottom)
    record[TOP], record[BOTTOM] = math.ceil(top), math.floor(bottom)


@kernel()
def _bands(record):
    """First and last + 1 band that the Gaussian touches."""
    top, bottom = int(record[TOP]), int(record[BOTTOM])
    if top > bottom:
        return 0, 0
    return top // TILE_HEIGHT, bottom // TILE_HEIGHT + 1


@kernel(parallel=True)
def fill_records(ranks, radii, means2d, conics, opacities, colors, width, height, records, bands_of):
    """Fill records (C, N, RECORD + channels and more) and bands_of (C, N), how many bands are touched, by depth rank."""
    cameras, count = radii.shape
    channels = colors.shape[2]
    blocks = (count + 255) // 256
    for block in prange(cameras * blocks):
        c = block // blocks
        first = (block - c * blocks) * 256
        for n in range(first, min(count, first + 256)):
            if radii[c, n] <= 0:
                continue
            i = ranks[c, n]
            record = records[c, i]
            dt = record.dtype.type
            x, y, opacity = means2d[c, n, 0], means2d[c, n, 1], opacities[c, n]
            A, B, C = conics[c, n, 0], conics[c, n, 1], conics[c, n, 2]
            record[X], record[Y], record[OPACITY] = x, y, opacity
            record[A_16], record[B_8], record[C_16] = A * dt(1 / 16), B * dt(1 / 8), C * dt(1 / 16)
            _fill_ellipse(x, y, A, B, C, opacity, radii[c, n], width, height, record)
            for k in range(channels):
                record[RECORD + k] = colors[c, n, k]
            for k in range(RECORD + channels, record.shape[0]):
                record[k] = dt(0)
            first_band, last_band = _bands(record)
            bands_of[c, i] = last_band - first_band


@kernel()
def scan_bands(visible, bands_of, first_span):
    """Fill first_span (C, N + 1), numbering spans Gaussian by Gaussian; returns how many there are."""
    total = 0
    for c in range(visible.shape[0]):
        for i in range(visible[c]):
            first_span[c, i] = total
            total += bands_of[c, i]
        first_span[c, visible[c]] = total
    return total


@kernel()
def _columns(record, top, bottom):
    """First and last + 1 tile column that the Gaussian touches in the pixel rows top..bottom.

    The ellipse is dx = -(B/A) dy -+ sqrt(p - q dy^2) with p = level / A, q = det / A^2; it is widest at dy = -+ _WIDEST.
    p = 0 stands for no bound.
    """
    dt = record.dtype.type
    left, right = record[LEFT], record[RIGHT]
    p, q, widest = record[_P], record[_Q], record[_WIDEST]
    if p > dt(0):
        tilt = dt(0.5) * record[B_8] / record[A_16]
        x, y = record[X] - dt(0.5), record[Y] - dt(0.5)
        dy_right = min(max(-widest, top - y), bottom - y)
        dy_left = min(max(widest, top - y), bottom - y)
        right = min(right, x - tilt * dy_right + math.sqrt(max(dt(0), p - q * dy_right * dy_right)))
        left = max(left, x - tilt * dy_left - math.sqrt(max(dt(0), p - q * dy_left * dy_left)))
    if not left <= right:
        return 0, 0
    first, last = int(left), int(right)  # neither is negative
    if dt(first) < left:
        first += 1
    if first > last:
        return 0, 0
    return first // TILE_WIDTH, last // TILE_WIDTH + 1


@kernel(parallel=True)
def find_spans(visible, records, first_span, width, spans, pairs_of, histogram):
    """Fill spans (spans, 2): first and last + 1 tile column; and count pairs.

    Fills pairs_of (C, N): pairs of the i-th Gaussian by depth; histogram (C, CHUNKS, tiles): pairs per chunk
    and tile.
    """
    cameras = records.shape[0]
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    for job in prange(cameras * CHUNKS):
        c = job // CHUNKS
        chunk = job - c * CHUNKS
        histogram[c, chunk] = 0
        for i in range(visible[c] * chunk // CHUNKS, visible[c] * (chunk + 1) // CHUNKS):
            record = records[c, i]
            dt = record.dtype.type
            total = 0
            span = first_span[c, i]
            band = int(record[TOP]) // TILE_HEIGHT
            for s in range(span, first_span[c, i + 1]):
                top = max(dt(band * TILE_HEIGHT), record[TOP])
                bottom = min(dt(band * TILE_HEIGHT + TILE_HEIGHT - 1), record[BOTTOM])
                first, last = _columns(record, top, bottom)
                spans[s, 0], spans[s, 1] = first, last
                total += last - first
                for tile in range(band * columns + first, band * columns + last):
                    histogram[c, chunk, tile] += 1
                band += 1
            pairs_of[c, i] = total


@kernel()
def scan_pairs(visible, pairs_of, histogram, first_slot, tile_start):
    """Turn counts into offsets.

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
def scatter_pairs(visible, records, first_span, spans, width, first_slot, histogram, pairs, slots):
    """Fill pairs and slots (pairs,): each pair (see RANK_SHIFT) and its slot, tile by tile, front to back."""
    cameras = records.shape[0]
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    for job in prange(cameras * CHUNKS):
        c = job // CHUNKS
        chunk = job - c * CHUNKS
        for i in range(visible[c] * chunk // CHUNKS, visible[c] * (chunk + 1) // CHUNKS):
            slot = first_slot[c, i]
            top, bottom = int(records[c, i, TOP]), int(records[c, i, BOTTOM])
            band = top // TILE_HEIGHT
            for s in range(first_span[c, i], first_span[c, i + 1]):
                first_row = max(top - band * TILE_HEIGHT, 0)
                last_row = min(bottom - band * TILE_HEIGHT, TILE_HEIGHT - 1)
                pair = i << PAIR_SHIFT | first_row << 3 | last_row
                for tile in range(band * columns + spans[s, 0], band * columns + spans[s, 1]):
                    place = histogram[c, chunk, tile]
                    histogram[c, chunk, tile] = place + 1
                    pairs[place] = pair
                    slots[place] = slot
                    slot += 1
                band += 1
