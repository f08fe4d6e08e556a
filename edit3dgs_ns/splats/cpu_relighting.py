"""Relighting on a CPU: one pass over the colours, where PyTorch takes several; with its gradient, or in place without."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numba import prange
from torch import Tensor

from edit3dgs_ns.splats.cpu_binding import check_binding
from edit3dgs_ns.splats.jit import kernel


def gain_in_place(
    colors: Float[Tensor, "gaussians bases 3"],
    gain: Float[Tensor, "faces 3"],
    binding: Int[Tensor, " gaussians"],
    gray: float,
) -> None:
    """Multiply `colors` by the gain of each one's face, and add `gray` (gain - 1) to the coefficient of degree 0; no gradients.

    In place, because another array of this size would be taken from the system and given back for every frame, which takes
    longer than the multiplication.
    """
    assert colors.is_contiguous()
    values = colors.numpy()
    _multiply(values, gain.contiguous().numpy(), binding.contiguous().numpy(), values.dtype.type(gray))


def gained(
    colors: Float[Tensor, "gaussians bases 3"],
    gain: Float[Tensor, "faces 3"],
    binding: Int[Tensor, " gaussians"],
    gray: float,
) -> Float[Tensor, "gaussians bases 3"]:
    """What `gain_in_place` makes of `colors`, in an array of its own; differentiable in `colors` and `gain`.

    The gradient of a face is summed over its Gaussians in their order, so that it does not depend on the number of threads.

    Raises:
        IndexError: a binding beyond the faces.
    """
    check_binding(binding, len(gain))
    return _Gained.apply(colors, gain, binding, gray)


class _Gained(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, colors: Tensor, gain: Tensor, binding: Tensor, gray: float) -> Tensor:
        before = colors.detach().contiguous().numpy()
        factors, faces = gain.detach().contiguous().numpy(), binding.contiguous().numpy()
        result = before.copy()
        _multiply(result, factors, faces, before.dtype.type(gray))
        ctx.arrays = before, factors, faces
        ctx.gray = before.dtype.type(gray)
        return torch.from_numpy(result)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        before, factors, faces = ctx.arrays
        by_color, by_gaussian = np.empty_like(before), np.empty((len(before), 3), before.dtype)
        _multiply_backward(
            before, factors, faces, ctx.gray, gradient.contiguous().numpy(), by_color, by_gaussian
        )
        by_gain = np.zeros_like(factors)
        _sum_at_faces(faces, by_gaussian, by_gain)
        return torch.from_numpy(by_color), torch.from_numpy(by_gain), None, None


@kernel(parallel=True)
def _multiply_backward(colors, gain, binding, gray, gradient, by_color, by_gaussian):
    for n in prange(colors.shape[0]):
        f = binding[n]
        for c in range(3):
            factor = gain[f, c]
            total = gray * gradient[n, 0, c]
            for k in range(colors.shape[1]):
                by_color[n, k, c] = factor * gradient[n, k, c]
                total += colors[n, k, c] * gradient[n, k, c]
            by_gaussian[n, c] = total


@kernel()
def _sum_at_faces(binding, by_gaussian, by_face):
    for n in range(binding.shape[0]):
        for c in range(3):
            by_face[binding[n], c] += by_gaussian[n, c]


@kernel(parallel=True)
def _multiply(colors, gain, binding, gray):
    one = colors.dtype.type(1)
    for n in prange(colors.shape[0]):
        r, g, b = gain[binding[n], 0], gain[binding[n], 1], gain[binding[n], 2]
        for k in range(colors.shape[1]):
            colors[n, k, 0] *= r
            colors[n, k, 1] *= g
            colors[n, k, 2] *= b
        colors[n, 0, 0] += (r - one) * gray
        colors[n, 0, 1] += (g - one) * gray
        colors[n, 0, 2] += (b - one) * gray
