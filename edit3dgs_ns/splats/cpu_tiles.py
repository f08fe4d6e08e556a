"""Blending the Gaussians of each tile front to back on the CPU, with gradient (Kerbl et al. 2023, eq. 3).

A pixel p sees Gaussian i with alpha_i = min(0.999, o_i exp(-sigma_i(p))), nothing below 1/255; its colour is
sum_i c_i alpha_i T_i + T_end background with T_i = prod_{j<i} (1 - alpha_j). As in gsplat, a pixel ends
*before* the Gaussian that would bring T to 1e-4 or less.

A tile is 8 rows of 16 pixels; one row is one vector (`simd`). While a pixel is open, its T is kept as it is;
once it has ended, as -T: a negative T fails every later test by itself. The first three channels are blended
in the main loop, any others in a loop of their own, so that one compiled kernel serves any number of
channels.

The backward pass runs front to back too, repeating the forward pass. With v the gradient of the image and
`behind` = v . (colour that comes after i, background included), per pixel:
    d loss / d alpha_i = T_i v.c_i - behind_i / (1 - alpha_i),    d alpha_i / d sigma_i = -alpha_i.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from edit3dgs_ns.splats.cpu_binning import RECORD, TILE_HEIGHT, TILE_WIDTH
from edit3dgs_ns.splats.jit import kernel
from edit3dgs_ns.splats.simd import (
    LANES,
    absolute,
    any_positive,
    exp_of_minus_8,
    lane_numbers,
    larger,
    load,
    smaller,
    splat,
    store,
    total,
    where_less,
)

assert LANES == TILE_WIDTH
SUMS = 8
"""Gradient sums per pair before those of the channels: v_sigma times 1, dx, dy, dx^2, dx dy, dy^2; |v_x|,
|v_y|."""

FUSED = 3
"""Channels of the main loop; records hold at least as many."""

PIXELS = TILE_HEIGHT * TILE_WIDTH
_CHECK_EVERY = 16
"""Pairs between two looks at whether the whole tile has ended."""


@kernel()
def _rows(record, tile_top):
    """First and last + 1 row of the tile that the Gaussian can reach."""
    dt = record.dtype.type
    first = max(record[6] - dt(tile_top), dt(0))
    last = min(record[7] - dt(tile_top), dt(TILE_HEIGHT - 1))
    return math.ceil(first), math.floor(last) + 1


@kernel()
def _spread(job, jobs):
    """A permutation of range(jobs) that scatters neighbours, so that threads with a half each get equal
    work."""
    step = int(jobs * 0.6180339887) | 1
    a, b = step, jobs
    while b:
        a, b = b, a % b
    return job * (step if a == 1 else 1) % jobs


@kernel()
def _open_pixels(live, top, left, width, height):
    """T = 1 inside the image; ended from the start outside."""
    dt = live.dtype.type
    for row in range(TILE_HEIGHT):
        for i in range(TILE_WIDTH):
            live[row * TILE_WIDTH + i] = dt(1) if top + row < height and left + i < width else dt(-1)


@kernel()
def _all_ended(live):
    for i in range(0, PIXELS, LANES):  # noqa: SIM110 (Numba knows no all())
        if any_positive(load(live, i)):
            return False
    return True


@kernel(parallel=True)
def blend_forward(records, tile_start, pair_rank, backgrounds, width, height, image, transmittance, tile_end):
    """Fill image (C, H, W, D), transmittance (C, H, W) and tile_end (C * tiles): past the last pair that was
    drawn."""
    cameras = records.shape[0]
    channels = image.shape[3]
    stored = records.shape[2] - RECORD
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    tiles = columns * ((height + TILE_HEIGHT - 1) // TILE_HEIGHT)
    dt = records.dtype.type
    for shuffled in prange(cameras * tiles):
        job = _spread(shuffled, cameras * tiles)
        c = job // tiles
        tile = job - c * tiles
        top = tile // columns * TILE_HEIGHT
        left = tile % columns * TILE_WIDTH
        live = np.empty(PIXELS, records.dtype)
        weights = np.empty(PIXELS, records.dtype)
        color = np.zeros(stored * PIXELS, records.dtype)
        _open_pixels(live, top, left, width, height)
        zero, ceiling = splat(dt(0)), splat(dt(0.999))
        cut, least = splat(dt(1 / 255)), splat(dt(1e-4))
        px = lane_numbers(dt(0)) + splat(dt(left) + dt(0.5))
        end = tile_start[job]
        for pair in range(tile_start[job], tile_start[job + 1]):
            record = records[c, pair_rank[pair]]
            first, last = _rows(record, top)
            dx = px - splat(record[0])
            # sigma / 8, as the exponential wants it: (A dx^2 + C dy^2) / 16 + B dx dy / 8.
            across = splat(dt(1 / 16) * record[2]) * dx * dx
            tilt, down = dt(1 / 8) * record[3], dt(1 / 16) * record[4]
            opacity = splat(record[5])
            r, g, b = splat(record[RECORD]), splat(record[RECORD + 1]), splat(record[RECORD + 2])
            drawn = zero
            for row in range(first, last):
                dy = dt(top + row) + dt(0.5) - record[1]
                at = row * TILE_WIDTH
                T = load(live, at)
                alpha = opacity * exp_of_minus_8(across + (splat(tilt * dy) * dx + splat(down * dy * dy)))
                alpha = smaller(alpha, ceiling)
                alpha = where_less(alpha, cut, zero, alpha)
                rest = T - T * alpha
                weight = where_less(least, rest, T * alpha, zero)
                drawn = larger(drawn, weight)
                store(live, at, where_less(least, rest, rest, zero - absolute(T)))
                store(color, at, load(color, at) + weight * r)
                store(color, at + PIXELS, load(color, at + PIXELS) + weight * g)
                store(color, at + 2 * PIXELS, load(color, at + 2 * PIXELS) + weight * b)
                if stored > FUSED:
                    store(weights, at, weight)
            for k in range(FUSED, stored):
                value = splat(record[RECORD + k])
                for row in range(first, last):
                    at = row * TILE_WIDTH
                    to = k * PIXELS + at
                    store(color, to, load(color, to) + load(weights, at) * value)
            if any_positive(drawn):
                end = pair + 1
            if (pair - tile_start[job]) % _CHECK_EVERY == _CHECK_EVERY - 1 and _all_ended(live):
                break
        tile_end[job] = end
        for row in range(min(TILE_HEIGHT, height - top)):
            for i in range(min(TILE_WIDTH, width - left)):
                at = row * TILE_WIDTH + i
                through = abs(live[at])
                transmittance[c, top + row, left + i] = through
                for k in range(channels):
                    image[c, top + row, left + i, k] = color[k * PIXELS + at] + through * backgrounds[c, k]


@kernel()
def _read_gradients(image, transmittance, v_image, v_alpha, c, top, left, v, behind):
    """Lay out a tile of the image's gradient by channel, and start `behind` with all of the colour."""
    _, height, width, channels = image.shape
    dt = v.dtype.type
    for row in range(min(TILE_HEIGHT, height - top)):
        for i in range(min(TILE_WIDTH, width - left)):
            at = row * TILE_WIDTH + i
            everything = -transmittance[c, top + row, left + i] * v_alpha[c, top + row, left + i, 0]
            for k in range(channels):
                v[k * PIXELS + at] = v_image[c, top + row, left + i, k]
                everything += v_image[c, top + row, left + i, k] * image[c, top + row, left + i, k]
            behind[at] = everything + dt(0)


@kernel(parallel=True)
def blend_backward(
    records, tile_start, tile_end, pair_rank, pair_slot, backgrounds, width, height, image, transmittance,
    v_image, v_alpha, want_absolute, sums,
):  # fmt: skip
    """Fill sums (pairs, SUMS + channels of a record), slot by slot."""
    cameras = records.shape[0]
    stored = records.shape[2] - RECORD
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    tiles = columns * ((height + TILE_HEIGHT - 1) // TILE_HEIGHT)
    dt = records.dtype.type
    for shuffled in prange(cameras * tiles):
        job = _spread(shuffled, cameras * tiles)
        c = job // tiles
        tile = job - c * tiles
        top = tile // columns * TILE_HEIGHT
        left = tile % columns * TILE_WIDTH
        live = np.empty(PIXELS, records.dtype)
        weights = np.empty(PIXELS, records.dtype)
        more = np.zeros(PIXELS, records.dtype)  # v . c of the channels that are not fused
        behind = np.zeros(PIXELS, records.dtype)
        v = np.zeros(stored * PIXELS, records.dtype)
        _open_pixels(live, top, left, width, height)
        _read_gradients(image, transmittance, v_image, v_alpha, c, top, left, v, behind)
        zero, one, ceiling = splat(dt(0)), splat(dt(1)), splat(dt(0.999))
        cut, least = splat(dt(1 / 255)), splat(dt(1e-4))
        px = lane_numbers(dt(0)) + splat(dt(left) + dt(0.5))
        for pair in range(tile_end[job], tile_start[job + 1]):
            sums[pair_slot[pair]] = dt(0)
        for pair in range(tile_start[job], tile_end[job]):
            record = records[c, pair_rank[pair]]
            first, last = _rows(record, top)
            dx = px - splat(record[0])
            across = splat(dt(1 / 16) * record[2]) * dx * dx
            tilt, down = dt(1 / 8) * record[3], dt(1 / 16) * record[4]
            opacity = splat(record[5])
            r, g, b = splat(record[RECORD]), splat(record[RECORD + 1]), splat(record[RECORD + 2])
            for k in range(FUSED, stored):
                value = splat(record[RECORD + k])
                for row in range(first, last):
                    at = row * TILE_WIDTH
                    so_far = load(more, at) if k > FUSED else zero
                    store(more, at, so_far + load(v, k * PIXELS + at) * value)
            s = s_x = s_y = s_xx = s_xy = s_yy = abs_x = abs_y = sum_r = sum_g = sum_b = zero
            for row in range(first, last):
                dy_row = dt(top + row) + dt(0.5) - record[1]
                at = row * TILE_WIDTH
                T = load(live, at)
                dy = splat(dy_row)
                faded = opacity * exp_of_minus_8(
                    across + (splat(tilt * dy_row) * dx + splat(down * dy_row * dy_row))
                )
                alpha = smaller(faded, ceiling)
                alpha = where_less(alpha, cut, zero, alpha)
                rest = T - T * alpha
                alpha = where_less(least, rest, alpha, zero)
                store(live, at, where_less(least, rest, rest, zero - absolute(T)))
                weight = T * alpha
                v_r, v_g, v_b = load(v, at), load(v, at + PIXELS), load(v, at + 2 * PIXELS)
                shade = v_r * r + v_g * g + v_b * b + load(more, at)
                after = load(behind, at) - weight * shade
                store(behind, at, after)
                sum_r += weight * v_r
                sum_g += weight * v_g
                sum_b += weight * v_b
                # The clamp at 0.999 passes no gradient.
                falling = where_less(ceiling, faded, zero, alpha)
                v_sigma = falling * (after / (one - alpha) - T * shade)
                v_x, v_y = v_sigma * dx, v_sigma * dy
                s += v_sigma
                s_x += v_x
                s_y += v_y
                s_xx += v_x * dx
                s_xy += v_x * dy
                s_yy += v_y * dy
                if want_absolute:
                    abs_x += absolute(splat(record[2]) * v_x + splat(record[3]) * v_y)
                    abs_y += absolute(splat(record[3]) * v_x + splat(record[4]) * v_y)
                if stored > FUSED:
                    store(weights, at, weight)
            out = sums[pair_slot[pair]]
            out[0], out[1], out[2] = total(s), total(s_x), total(s_y)
            out[3], out[4], out[5] = total(s_xx), total(s_xy), total(s_yy)
            out[6], out[7] = total(abs_x), total(abs_y)
            out[SUMS], out[SUMS + 1], out[SUMS + 2] = total(sum_r), total(sum_g), total(sum_b)
            for k in range(FUSED, stored):
                channel = zero
                for row in range(first, last):
                    at = row * TILE_WIDTH
                    channel += load(weights, at) * load(v, k * PIXELS + at)
                out[SUMS + k] = total(channel)


@kernel(parallel=True)
def gather_gradients(
    order, visible, records, first_slot, sums, v_means2d, v_absolute, v_conics, v_opacities, v_colors
):
    """Add up the slots of each Gaussian, in order, into the zeroed gradients by camera and Gaussian."""
    cameras = order.shape[0]
    channels = v_colors.shape[2]
    dt = records.dtype.type
    blocks = (order.shape[1] + 255) // 256
    for block in prange(cameras * blocks):
        c = block // blocks
        first = (block - c * blocks) * 256
        added = np.empty(SUMS + channels, records.dtype)
        for i in range(first, min(visible[c], first + 256)):
            added[:] = dt(0)
            for slot in range(first_slot[c, i], first_slot[c, i + 1]):
                for k in range(SUMS + channels):
                    added[k] += sums[slot, k]
            n = order[c, i]
            record = records[c, i]
            # sigma falls as the mean moves towards the pixel: d sigma / d mean = -(conic d), d = pixel -
            # mean.
            v_means2d[c, n, 0] = -(record[2] * added[1] + record[3] * added[2])
            v_means2d[c, n, 1] = -(record[3] * added[1] + record[4] * added[2])
            v_absolute[c, n, 0] = added[6]
            v_absolute[c, n, 1] = added[7]
            v_conics[c, n, 0] = dt(0.5) * added[3]
            v_conics[c, n, 1] = added[4]
            v_conics[c, n, 2] = dt(0.5) * added[5]
            if record[5] > dt(0):
                v_opacities[c, n] = -added[0] / record[5]
            for k in range(channels):
                v_colors[c, n, k] = added[SUMS + k]
