"""Structural similarity on the CPU, with its gradient: half the time of a training step was spent here with torch operations.

The formulas are those of `pytorch_msssim.ssim` (Wang et al., 2004; Gaussian window, no padding), which the tests compare with.
Images keep the rasterizer's layout (views, height, width, channels): a row is one contiguous run of width x channels
numbers, and every loop below runs along it.

Forward, for every window: the five blurred maps, S, and the derivatives of S by the blurred a, a^2 and a b. Backward: these three,
blurred with the transposed window, give dS/da = B^T(dS/dmu) + 2 a B^T(dS/d(aa)) + b B^T(dS/d(ab)). S is symmetric: the
gradient by b, which training does not need, is that by a of the swapped images.
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
    """Mean SSIM of `a` and `b` (float32 or float64), differentiable in both."""

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
        planes = [t.detach().contiguous().numpy().reshape(views, height, -1) for t in (a, b)]
        real = planes[0].dtype.type
        constants = (window.numpy().astype(real), channels, real(c1), real(c2))
        out = (views, height - size + 1, (width - size + 1) * channels)
        derivatives = np.empty((3, *out), real)
        sums = np.empty(out[:2], np.float64)
        _forward(*planes, *constants, derivatives, sums)
        ctx.arrays = (*planes, constants, derivatives)
        ctx.shape = a.shape
        return a.new_tensor(sums.sum() / np.prod(out))

    @staticmethod
    def backward(
        ctx: Any, gradient: Float[Tensor, ""]
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:  # type: ignore[override]
        a, b, constants, derivatives = ctx.arrays
        by_a = by_b = None
        if ctx.needs_input_grad[0]:
            by_a = _gradient(a, b, constants, derivatives, float(gradient)).reshape(ctx.shape)
        if ctx.needs_input_grad[1]:
            swapped = np.empty_like(derivatives)
            _forward(b, a, *constants, swapped, np.empty(derivatives.shape[1:3], np.float64))
            by_b = _gradient(b, a, constants, swapped, float(gradient)).reshape(ctx.shape)
        return by_a, by_b, None, None, None


def _gradient(
    a: np.ndarray, b: np.ndarray, constants: tuple[Any, ...], derivatives: np.ndarray, gradient: float
) -> Tensor:
    """Gradient by the first image, given that of the mean over all windows."""
    taps, channels, *_ = constants
    result = np.empty_like(a)
    _backward(a, b, taps, channels, derivatives, a.dtype.type(gradient / derivatives[0].size), result)
    return torch.from_numpy(result)


@kernel(parallel=True)
def _forward(a, b, taps, channels, c1, c2, derivatives, sums):  # type: ignore[no-untyped-def]
    views, rows, length = derivatives.shape[1:]
    width = a.shape[2]
    size = len(taps)
    for job in numba.prange(views * rows):
        view, row = job // rows, job % rows
        down = np.zeros((5, width), a.dtype)
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
        blurred = np.zeros((5, length), a.dtype)
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
        down = np.zeros((3, width + margin), a.dtype)
        for k in range(size):
            source_row = row - k
            if 0 <= source_row < rows:
                w = taps[k]
                for m in range(3):
                    source, target = derivatives[m, view, source_row], down[m]
                    for i in range(length):
                        target[margin + i] += w * source[i]
        spread = np.zeros((3, width), a.dtype)
        for m in range(3):
            source, target = down[m], spread[m]
            for k in range(size):
                w, shift = taps[k], margin - k * channels
                for i in range(width):
                    target[i] += w * source[i + shift]
        for i in range(width):
            value = spread[0, i] + 2 * a[view, row, i] * spread[1, i] + b[view, row, i] * spread[2, i]
            result[view, row, i] = factor * value
