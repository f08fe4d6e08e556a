"""`PoseDependentAppearance` on a CPU: one pass over the Gaussians, one for the gradient; PyTorch would copy all colours thrice.

For Gaussian n on face f, with the code z of the expression and the gain g of the face:

    x = x_l + sum_r o_nr z_r        c_0 = (c_dc + sum_r p_nr z_r) g_f + gray (g_f - 1)        c_k = c_rest,k g_f

The gradient of a face is summed over its Gaussians in their order, so that it does not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numba import prange
from torch import Tensor

from edit3dgs_ns.splats.cpu_binding import check_binding
from edit3dgs_ns.splats.jit import kernel


def posed_colors(
    dc: Float[Tensor, "gaussians 3"],
    rest: Float[Tensor, "gaussians higher_bases 3"],
    bases: int,
    offsets: Float[Tensor, "gaussians rank 3"] | None,
    code: Float[Tensor, " rank"] | None,
    gain: Float[Tensor, "faces 3"] | None,
    binding: Int[Tensor, " gaussians"],
    gray: float,
) -> Float[Tensor, "gaussians bases 3"]:
    """SH coefficients of one pose; differentiable in `dc`, `rest`, `offsets` and `gain`.

    Args:
        dc: coefficients of degree 0, at rest.
        rest: those of the higher degrees.
        bases: how many of all are in use; at most as many as there are.
        offsets: of `dc` per unit of the code; None for none.
        code: of the expression; a constant.
        gain: how much brighter each face is than at rest, per channel; None for no relighting.
        binding: the face of each Gaussian.
        gray: the coefficient of degree 0 of a brightness of 0.5, which is what SH colours are counted from.

    Raises:
        IndexError: a binding beyond the faces.
    """
    if gain is None:
        gain = dc.new_empty(0, 3)
    else:
        check_binding(binding, len(gain))
    if offsets is None or code is None:
        offsets, code = dc.new_empty(len(dc), 0, 3), dc.new_empty(0)
    return _PosedColors.apply(dc, rest, offsets, gain, code, binding, min(bases, 1 + rest.shape[1]), gray)


def posed_means(
    means: Float[Tensor, "gaussians 3"],
    offsets: Float[Tensor, "gaussians rank 3"],
    code: Float[Tensor, " rank"],
) -> Float[Tensor, "gaussians 3"]:
    """`means + offsets . code`; differentiable in both, the code is a constant."""
    return _PosedMeans.apply(means, offsets, code)


class _PosedColors(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        dc: Tensor,
        rest: Tensor,
        offsets: Tensor,
        gain: Tensor,
        code: Tensor,
        binding: Tensor,
        bases: int,
        gray: float,
    ) -> Tensor:
        arrays = tuple(x.detach().contiguous().numpy() for x in (dc, rest, offsets, gain, code, binding))
        result = np.empty((len(dc), bases, 3), arrays[0].dtype)
        ctx.gray = arrays[0].dtype.type(gray)
        _colors(*arrays, ctx.gray, result)
        ctx.arrays = arrays
        return torch.from_numpy(result)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        arrays = ctx.arrays
        v_dc, v_rest, v_offsets, v_gain = (np.empty_like(x) for x in arrays[:4])
        by_gaussian = np.empty((len(v_dc) if len(v_gain) else 0, 3), v_dc.dtype)
        _colors_backward(
            *arrays, ctx.gray, gradient.contiguous().numpy(), v_dc, v_rest, v_offsets, by_gaussian
        )
        v_gain[:] = 0
        if len(v_gain):
            _sum_at_faces(arrays[5], by_gaussian, v_gain)
        return (*(torch.from_numpy(x) for x in (v_dc, v_rest, v_offsets, v_gain)), None, None, None, None)


class _PosedMeans(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, means: Tensor, offsets: Tensor, code: Tensor) -> Tensor:
        ctx.code, ctx.shape = code.detach().contiguous().numpy(), offsets.shape
        result = means.detach().numpy().copy()
        _means(offsets.detach().contiguous().numpy(), ctx.code, result)
        return torch.from_numpy(result)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        received = gradient.contiguous()
        v_offsets = np.empty(ctx.shape, received.numpy().dtype)
        _means_backward(ctx.code, received.numpy(), v_offsets)
        return received, torch.from_numpy(v_offsets), None


@kernel(parallel=True)
def _means(offsets, code, means):
    for n in prange(means.shape[0]):
        for r in range(code.shape[0]):
            for i in range(3):
                means[n, i] += offsets[n, r, i] * code[r]


@kernel(parallel=True)
def _means_backward(code, gradient, v_offsets):
    for n in prange(gradient.shape[0]):
        for r in range(code.shape[0]):
            for i in range(3):
                v_offsets[n, r, i] = gradient[n, i] * code[r]


@kernel(parallel=True)
def _colors(dc, rest, offsets, gain, code, binding, gray, colors):
    one = dc.dtype.type(1)
    relit = gain.shape[0] > 0
    for n in prange(dc.shape[0]):
        g0 = g1 = g2 = one
        if relit:
            f = binding[n]
            g0, g1, g2 = gain[f, 0], gain[f, 1], gain[f, 2]
        x, y, z = dc[n, 0], dc[n, 1], dc[n, 2]
        for r in range(code.shape[0]):
            x += offsets[n, r, 0] * code[r]
            y += offsets[n, r, 1] * code[r]
            z += offsets[n, r, 2] * code[r]
        colors[n, 0, 0] = x * g0 + gray * (g0 - one)
        colors[n, 0, 1] = y * g1 + gray * (g1 - one)
        colors[n, 0, 2] = z * g2 + gray * (g2 - one)
        for k in range(1, colors.shape[1]):
            colors[n, k, 0] = rest[n, k - 1, 0] * g0
            colors[n, k, 1] = rest[n, k - 1, 1] * g1
            colors[n, k, 2] = rest[n, k - 1, 2] * g2


@kernel(parallel=True)
def _colors_backward(
    dc, rest, offsets, gain, code, binding, gray, gradient, v_dc, v_rest, v_offsets, by_gaussian
):  # fmt: skip
    one, zero = dc.dtype.type(1), dc.dtype.type(0)
    relit = gain.shape[0] > 0
    bases = gradient.shape[1]
    for n in prange(dc.shape[0]):
        g0 = g1 = g2 = one
        if relit:
            f = binding[n]
            g0, g1, g2 = gain[f, 0], gain[f, 1], gain[f, 2]
        v0, v1, v2 = gradient[n, 0, 0], gradient[n, 0, 1], gradient[n, 0, 2]
        v_dc[n, 0], v_dc[n, 1], v_dc[n, 2] = g0 * v0, g1 * v1, g2 * v2
        x, y, z = dc[n, 0] + gray, dc[n, 1] + gray, dc[n, 2] + gray
        for r in range(code.shape[0]):
            x += offsets[n, r, 0] * code[r]
            y += offsets[n, r, 1] * code[r]
            z += offsets[n, r, 2] * code[r]
            v_offsets[n, r, 0] = g0 * v0 * code[r]
            v_offsets[n, r, 1] = g1 * v1 * code[r]
            v_offsets[n, r, 2] = g2 * v2 * code[r]
        x, y, z = x * v0, y * v1, z * v2
        for k in range(bases - 1):
            a, b, c = gradient[n, k + 1, 0], gradient[n, k + 1, 1], gradient[n, k + 1, 2]
            x += rest[n, k, 0] * a
            y += rest[n, k, 1] * b
            z += rest[n, k, 2] * c
            v_rest[n, k, 0], v_rest[n, k, 1], v_rest[n, k, 2] = g0 * a, g1 * b, g2 * c
        for k in range(bases - 1, rest.shape[1]):
            v_rest[n, k, 0] = v_rest[n, k, 1] = v_rest[n, k, 2] = zero
        if relit:
            by_gaussian[n, 0], by_gaussian[n, 1], by_gaussian[n, 2] = x, y, z


@kernel()
def _sum_at_faces(binding, by_gaussian, by_face):
    for n in range(binding.shape[0]):
        for c in range(3):
            by_face[binding[n], c] += by_gaussian[n, c]
