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

import numpy as np
from numba import prange

from edit3dgs_ns.splats.cpu_binning import (
    A_16,
    B_8,
    C_16,
    OPACITY,
    PAIR_SHIFT,
    RECORD,
    TILE_HEIGHT,
    TILE_WIDTH,
    X,
    Y,
)
from edit3dgs_ns.splats.jit import kernel
from edit3dgs_ns.splats.simd import (
    LANES,
    absolute,
    any_positive,
    cache_line_start,
    element,
    exp_of_minus_8,
    lane_numbers,
    load,
    prefetch,
    smaller,
    splat,
    store,
    store_totals,
    total,
    where_less,
)

assert LANES == TILE_WIDTH
SUMS = 8
"""Gradient sums per pair before those of the channels: v_sigma times 1, dx, dy, dx^2, dx dy, dy^2; |v_x|,
|v_y|."""

FUSED = 3
"""Channels of the main loop; records hold at least as many."""

STORED = 12
"""Numbers of the sums that are written at once: SUMS + FUSED, and one to spare."""

PIXELS = TILE_HEIGHT * TILE_WIDTH
_AHEAD = 12
"""Pairs between asking for a record and using it: records lie in memory by depth, a tile reads a few here and there. Without
this, waiting for them takes two thirds of the time."""
_CHECK_EVERY = 16
"""Pairs between two looks at whether the whole tile has ended."""


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
def _tile(job, width, height):
    """Camera, first row and first column of a tile."""
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    tiles = columns * ((height + TILE_HEIGHT - 1) // TILE_HEIGHT)
    c = job // tiles
    tile = job - c * tiles
    return c, tile // columns * TILE_HEIGHT, tile % columns * TILE_WIDTH


@kernel()
def _open_pixels(scratch, live, top, left, width, height):
    """T = 1 inside the image; ended from the start outside."""
    dt = scratch.dtype.type
    for row in range(TILE_HEIGHT):
        for i in range(TILE_WIDTH):
            scratch[live + row * TILE_WIDTH + i] = (
                dt(1) if top + row < height and left + i < width else dt(-1)
            )


@kernel()
def _all_ended(scratch, live):
    for i in range(live, live + PIXELS, LANES):  # noqa: SIM110 (Numba knows no all())
        if any_positive(load(scratch, i)):
            return False
    return True


@kernel()
def _record(pairs, place, flat, first_record, length):
    """Of a pair: where its record begins, and the first and last + 1 row of the tile that it reaches."""
    ahead = element(pairs, min(place + _AHEAD, pairs.shape[0] - 1))
    prefetch(flat, (first_record + (ahead >> PAIR_SHIFT)) * length)
    pair = element(pairs, place)
    return (first_record + (pair >> PAIR_SHIFT)) * length, pair >> 3 & 7, (pair & 7) + 1


@kernel()
def _invariants(flat, record, px):
    """Of one Gaussian in one tile: what sigma / 8 = across + dy (tilt + down dy) is made of; its opacity and three colours."""
    dx = px - splat(element(flat, record + X))
    across = splat(element(flat, record + A_16)) * dx * dx
    tilt, down = splat(element(flat, record + B_8)) * dx, splat(element(flat, record + C_16))
    opacity = splat(element(flat, record + OPACITY))
    r, g, b = (
        splat(element(flat, record + RECORD)),
        splat(element(flat, record + RECORD + 1)),
        splat(element(flat, record + RECORD + 2)),
    )
    return dx, across, tilt, down, opacity, r, g, b


@kernel()
def _write_tile(scratch, live, color, backgrounds, c, top, left, image, transmittance):
    """Put a tile's colours, over the background, and what is left of the light into the image."""
    _, height, width, channels = image.shape
    wide = min(TILE_WIDTH, width - left)
    for row in range(min(TILE_HEIGHT, height - top)):
        at = live + row * TILE_WIDTH
        for i in range(wide):
            scratch[at + i] = abs(scratch[at + i])
            transmittance[c, top + row, left + i] = scratch[at + i]
        for k in range(channels):
            of = color + k * PIXELS + row * TILE_WIDTH
            for i in range(wide):
                image[c, top + row, left + i, k] = scratch[of + i] + scratch[at + i] * backgrounds[c, k]


@kernel()
def _write_background(backgrounds, c, top, left, image, transmittance):
    """Fill a tile that shows no Gaussian."""
    _, height, width, channels = image.shape
    for row in range(top, min(top + TILE_HEIGHT, height)):
        for column in range(left, min(left + TILE_WIDTH, width)):
            transmittance[c, row, column] = 1
            for k in range(channels):
                image[c, row, column, k] = backgrounds[c, k]


@kernel(parallel=True)
def blend_forward(records, tile_start, pairs, backgrounds, width, height, image, transmittance, tile_end):
    """Fill image (C, H, W, D), transmittance (C, H, W) and tile_end (C * tiles): past the last pair
    before the whole tile had ended."""
    _, gaussians, length = records.shape
    flat = records.reshape(-1)
    channels = image.shape[3]
    stored = max(channels, FUSED)
    jobs = tile_end.shape[0]
    dt = records.dtype.type
    for shuffled in prange(jobs):
        job = _spread(shuffled, jobs)
        c, top, left = _tile(job, width, height)
        if tile_start[job] == tile_start[job + 1]:
            tile_end[job] = tile_start[job]
            _write_background(backgrounds, c, top, left, image, transmittance)
            continue
        first_record = c * gaussians
        scratch = np.zeros((2 + stored) * PIXELS + LANES, records.dtype)
        live = cache_line_start(scratch)
        weights, color = live + PIXELS, live + 2 * PIXELS
        _open_pixels(scratch, live, top, left, width, height)
        zero, one, ceiling = splat(dt(0)), splat(dt(1)), splat(dt(0.999))
        cut, least = splat(dt(1 / 255)), splat(dt(1e-4))
        px = lane_numbers(dt(0)) + splat(dt(left) + dt(0.5))
        end = tile_start[job + 1]
        for place in range(tile_start[job], tile_start[job + 1]):
            record, first, last = _record(pairs, place, flat, first_record, length)
            _, across, tilt, down, opacity, r, g, b = _invariants(flat, record, px)
            dy = splat(dt(top + first) + dt(0.5) - element(flat, record + Y))
            for at in range(first * TILE_WIDTH, last * TILE_WIDTH, TILE_WIDTH):
                faded = opacity * exp_of_minus_8(across + dy * (tilt + down * dy))
                T = load(scratch, live + at)
                alpha = smaller(faded, ceiling)
                alpha = where_less(alpha, cut, zero, alpha)
                rest = T - T * alpha
                weight = where_less(least, rest, T * alpha, zero)
                store(scratch, live + at, where_less(least, rest, rest, zero - absolute(T)))
                to = color + at
                store(scratch, to, load(scratch, to) + weight * r)
                store(scratch, to + PIXELS, load(scratch, to + PIXELS) + weight * g)
                store(scratch, to + 2 * PIXELS, load(scratch, to + 2 * PIXELS) + weight * b)
                dy += one
                if stored > FUSED:
                    store(scratch, weights + at, weight)
            for k in range(FUSED, stored):
                value = splat(element(flat, record + RECORD + k))
                for at in range(first * TILE_WIDTH, last * TILE_WIDTH, TILE_WIDTH):
                    to = color + k * PIXELS + at
                    store(scratch, to, load(scratch, to) + load(scratch, weights + at) * value)
            if (place - tile_start[job]) % _CHECK_EVERY == _CHECK_EVERY - 1 and _all_ended(scratch, live):
                end = place + 1
                break
        tile_end[job] = end
        _write_tile(scratch, live, color, backgrounds, c, top, left, image, transmittance)


@kernel()
def _read_gradients(image, transmittance, v_image, v_alpha, c, top, left, scratch, v, behind):
    """Lay out a tile of the image's gradient by channel, and start `behind` with all of the colour."""
    _, height, width, channels = image.shape
    wide = min(TILE_WIDTH, width - left)
    for row in range(min(TILE_HEIGHT, height - top)):
        at = behind + row * TILE_WIDTH
        for i in range(wide):
            scratch[at + i] = -transmittance[c, top + row, left + i] * v_alpha[c, top + row, left + i, 0]
        for k in range(channels):
            to = v + k * PIXELS + row * TILE_WIDTH
            for i in range(wide):
                gradient = v_image[c, top + row, left + i, k]
                scratch[to + i] = gradient
                scratch[at + i] += gradient * image[c, top + row, left + i, k]


@kernel(parallel=True)
def blend_backward(
    records, tile_start, tile_end, pairs, slots, width, height, image, transmittance,
    v_image, v_alpha, want_absolute, sums,
):  # fmt: skip
    """Fill sums (pairs, at least SUMS + channels), slot by slot."""
    _, gaussians, length = records.shape
    flat = records.reshape(-1)
    flat_sums = sums.reshape(-1)
    summed = sums.shape[1]
    stored = max(image.shape[3], FUSED)
    jobs = tile_end.shape[0]
    dt = records.dtype.type
    for shuffled in prange(jobs):
        job = _spread(shuffled, jobs)
        if tile_start[job] == tile_start[job + 1]:
            continue
        c, top, left = _tile(job, width, height)
        first_record = c * gaussians
        scratch = np.zeros((4 + stored) * PIXELS + LANES, records.dtype)
        live = cache_line_start(scratch)
        weights, more, behind, v = live + PIXELS, live + 2 * PIXELS, live + 3 * PIXELS, live + 4 * PIXELS
        _open_pixels(scratch, live, top, left, width, height)
        _read_gradients(image, transmittance, v_image, v_alpha, c, top, left, scratch, v, behind)
        zero, one, ceiling = splat(dt(0)), splat(dt(1)), splat(dt(0.999))
        cut, least = splat(dt(1 / 255)), splat(dt(1e-4))
        px = lane_numbers(dt(0)) + splat(dt(left) + dt(0.5))
        for place in range(tile_end[job], tile_start[job + 1]):
            sums[slots[place]] = dt(0)
        for place in range(tile_start[job], tile_end[job]):
            record, first, last = _record(pairs, place, flat, first_record, length)
            dx, across, tilt, down, opacity, r, g, b = _invariants(flat, record, px)
            dy = splat(dt(top + first) + dt(0.5) - element(flat, record + Y))
            for k in range(FUSED, stored):
                value = splat(element(flat, record + RECORD + k))
                for at in range(first * TILE_WIDTH, last * TILE_WIDTH, TILE_WIDTH):
                    so_far = load(scratch, more + at) if k > FUSED else zero
                    store(scratch, more + at, so_far + load(scratch, v + k * PIXELS + at) * value)
            s = s_y = s_yy = abs_x = abs_y = sum_r = sum_g = sum_b = zero
            for at in range(first * TILE_WIDTH, last * TILE_WIDTH, TILE_WIDTH):
                faded = opacity * exp_of_minus_8(across + dy * (tilt + down * dy))
                T = load(scratch, live + at)
                alpha = smaller(faded, ceiling)
                alpha = where_less(alpha, cut, zero, alpha)
                rest = T - T * alpha
                alpha = where_less(least, rest, alpha, zero)
                store(scratch, live + at, where_less(least, rest, rest, zero - absolute(T)))
                weight = T * alpha
                of = v + at
                v_r, v_g, v_b = load(scratch, of), load(scratch, of + PIXELS), load(scratch, of + 2 * PIXELS)
                shade = v_r * r + v_g * g + v_b * b + load(scratch, more + at)
                after = load(scratch, behind + at) - weight * shade
                store(scratch, behind + at, after)
                sum_r += weight * v_r
                sum_g += weight * v_g
                sum_b += weight * v_b
                # The clamp at 0.999 passes no gradient.
                falling = where_less(ceiling, faded, zero, alpha)
                v_sigma = falling * (after / (one - alpha) - T * shade)
                v_y = v_sigma * dy
                s += v_sigma
                s_y += v_y
                s_yy += v_y * dy
                if want_absolute:
                    # d sigma / d dx and d dy, of which sigma / 8 = across + dy (tilt + down dy) has the parts.
                    a_dx = splat(dt(16) * element(flat, record + A_16)) * dx
                    b_8 = splat(dt(8) * element(flat, record + B_8))
                    abs_x += absolute(v_sigma * (a_dx + b_8 * dy))
                    abs_y += absolute(v_sigma * (b_8 * dx + splat(dt(16)) * down * dy))
                dy += one
                if stored > FUSED:
                    store(scratch, weights + at, weight)
            # dx is the same in every row: it is multiplied once, at the end.
            s_x = s * dx
            every = (s, s_x, s_y, s_x * dx, s_y * dx, s_yy, abs_x, abs_y, sum_r, sum_g, sum_b)
            out = slots[place] * summed
            store_totals(flat_sums, out, every, STORED)
            for k in range(FUSED, stored):
                channel = zero
                for at in range(first * TILE_WIDTH, last * TILE_WIDTH, TILE_WIDTH):
                    channel += load(scratch, weights + at) * load(scratch, v + k * PIXELS + at)
                flat_sums[out + SUMS + k] = total(channel)


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
            A, B, C = dt(16) * record[A_16], dt(8) * record[B_8], dt(16) * record[C_16]
            v_means2d[c, n, 0] = -(A * added[1] + B * added[2])
            v_means2d[c, n, 1] = -(B * added[1] + C * added[2])
            v_absolute[c, n, 0] = added[6]
            v_absolute[c, n, 1] = added[7]
            v_conics[c, n, 0] = dt(0.5) * added[3]
            v_conics[c, n, 1] = added[4]
            v_conics[c, n, 2] = dt(0.5) * added[5]
            if record[OPACITY] > dt(0):
                v_opacities[c, n] = -added[0] / record[OPACITY]
            for k in range(channels):
                v_colors[c, n, k] = added[SUMS + k]
