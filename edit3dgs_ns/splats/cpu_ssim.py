"""Structural similarity on the CPU, with its gradient: half the time of a training step was spent here with torch operations.

The formulas are those of `losses.ssim_reference` (Wang et al., 2004; 11-pixel Gaussian window, sigma 1.5, no padding).
Images keep the rasterizer's layout (views, height, width, channels): a row is one contiguous run of width x channels
numbers, and every loop below runs along it.

Forward, for every window: the five blurred maps, S, and the derivatives of S by the blurred a, a^2 and a b. Backward: these three,
blurred with the transposed window, give dS/da = B^T(dS/dmu) + 2 a B^T(dS/d(aa)) + b B^T(dS/d(ab)).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.splats.jit import kernel


class CpuSsim(torch.autograd.Function):
    """Mean SSIM of `a` and `b`; differentiable in `a` alone."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Float[Tensor, "views height width channels"],
        b: Float[Tensor, "views height width channels"],
        window: Float[Tensor, " taps"],
        c1: float,
        c2: float,
    ) -> Float[Tensor, ""]:
        views, height, width, channels = a.shape
        size = len(window)
        planes = [t.detach().contiguous().float().numpy().reshape(views, height, -1) for t in (a, b)]
        taps = window.float().numpy()
        out = (views, height - size + 1, (width - size + 1) * channels)
        derivatives = np.empty((3, *out), np.float32)
        sums = np.empty(out[:2], np.float64)
        _forward(*planes, taps, channels, np.float32(c1), np.float32(c2), derivatives, sums)
        ctx.arrays = (*planes, taps, channels, derivatives)
        ctx.like = a
        return a.new_tensor(sums.sum() / np.prod(out))

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, ""]) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        a, b, taps, channels, derivatives = ctx.arrays
        result = np.empty_like(a)
        _backward(
            a, b, taps, channels, derivatives, np.float32(float(gradient) / derivatives[0].size), result
        )
        return torch.from_numpy(result).reshape(ctx.like.shape).to(ctx.like.dtype), None, None, None, None


@kernel(parallel=True)
def _forward(a, b, taps, channels, c1, c2, derivatives, sums):  # type: ignore[no-untyped-def]
    views, rows, length = derivatives.shape[1:]
    width = a.shape[2]
    size = len(taps)
    for job in numba.prange(views * rows):
        view, row = job // rows, job % rows
        down = np.zeros((5, width), np.float32)
        for k in range(size):
            w = taps[k]
            x, y = a[view, row + k], b[view, row + k]
            for i in range(width):
                wx, wy = w * x[i], w * y[i]
                down[0, i] += wx
                down[1, i] += wy
                down[2, i] += wx * x[i]
                down[3, i] += wy * y[i]
                down[4, i] += wx * y[i]
        blurred = np.zeros((5, length), np.float32)
        for m in range(5):
            source, target = down[m], blurred[m]
            for k in range(size):
                w, shift = taps[k], k * channels
                for i in range(length):
                    target[i] += w * source[i + shift]
        total = 0.0
        for i in range(length):
            mu_a, mu_b = blurred[0, i], blurred[1, i]
            n1 = 2 * mu_a * mu_b + c1
            n2 = 2 * (blurred[4, i] - mu_a * mu_b) + c2
            d1 = mu_a * mu_a + mu_b * mu_b + c1
            d2 = blurred[2, i] - mu_a * mu_a + blurred[3, i] - mu_b * mu_b + c2
            inverse = 1 / (d1 * d2)
            s = n1 * n2 * inverse
            derivatives[0, view, row, i] = 2 * (mu_b * (n2 - n1) * inverse - s * mu_a * (1 / d1 - 1 / d2))
            derivatives[1, view, row, i] = -s / d2
            derivatives[2, view, row, i] = 2 * n1 * inverse
            total += s
        sums[view, row] = total


@kernel(parallel=True)
def _backward(a, b, taps, channels, derivatives, factor, result):  # type: ignore[no-untyped-def]
    views, rows, length = derivatives.shape[1:]
    height, width = a.shape[1:]
    size = len(taps)
    margin = (size - 1) * channels
    for job in numba.prange(views * height):
        view, row = job // height, job % height
        # Zeros on both sides, so that the horizontal pass needs no bounds.
        down = np.zeros((3, width + margin), np.float32)
        for k in range(size):
            source_row = row - k
            if 0 <= source_row < rows:
                w = taps[k]
                for m in range(3):
                    source, target = derivatives[m, view, source_row], down[m]
                    for i in range(length):
                        target[margin + i] += w * source[i]
        spread = np.zeros((3, width), np.float32)
        for m in range(3):
            source, target = down[m], spread[m]
            for k in range(size):
                w, shift = taps[k], margin - k * channels
                for i in range(width):
                    target[i] += w * source[i + shift]
        for i in range(width):
            value = spread[0, i] + 2 * a[view, row, i] * spread[1, i] + b[view, row, i] * spread[2, i]
            result[view, row, i] = factor * value
