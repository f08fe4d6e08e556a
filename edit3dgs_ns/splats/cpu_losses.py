"""`losses.binding_losses` on the CPU: one pass over the Gaussians, and its gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numba import prange
from torch import Tensor

from edit3dgs_ns.splats.jit import kernel


class CpuBindingLosses(torch.autograd.Function):
    """The cost of distance and the cost of size, each a mean over the visible Gaussians."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Float[Tensor, "gaussians 3"],
        scales: Float[Tensor, "gaussians 3"],
        visible: Bool[Tensor, " gaussians"],
        position_threshold: float,
        scale_threshold: float,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        arrays = tuple(x.detach().contiguous().numpy() for x in (means, scales, visible))
        real = arrays[0].dtype.type
        thresholds = real(position_threshold), real(scale_threshold)
        costs = np.empty((2, len(arrays[0])), real)
        _costs(*arrays, *thresholds, costs)
        count = max(int(arrays[2].sum()), 1)
        ctx.arrays, ctx.thresholds, ctx.count = arrays, thresholds, count
        distance, size = costs.sum(axis=1, dtype=np.float64) / count
        return means.new_tensor(distance), means.new_tensor(size)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, by_distance: Float[Tensor, ""], by_size: Float[Tensor, ""]
    ) -> tuple[Tensor, Tensor, None, None, None]:
        means, scales, visible = ctx.arrays
        real = means.dtype.type
        v_means, v_scales = np.zeros_like(means), np.zeros_like(scales)
        factors = real(float(by_distance) / ctx.count), real(float(by_size) / ctx.count)
        _costs_backward(means, scales, visible, *ctx.thresholds, *factors, v_means, v_scales)
        return torch.from_numpy(v_means), torch.from_numpy(v_scales), None, None, None


@kernel(parallel=True)
def _costs(means, scales, visible, position_threshold, scale_threshold, costs):
    zero = means.dtype.type(0)
    for n in prange(means.shape[0]):
        costs[0, n] = costs[1, n] = zero
        if visible[n]:
            squared = size = zero
            for i in range(3):
                squared += means[n, i] * means[n, i]
                beyond = max(math.exp(scales[n, i]) - scale_threshold, zero)
                size += beyond * beyond
            costs[0, n] = max(math.sqrt(squared) - position_threshold, zero)
            costs[1, n] = math.sqrt(size)


@kernel(parallel=True)
def _costs_backward(
    means, scales, visible, position_threshold, scale_threshold, by_distance, by_size, v_means, v_scales
):
    """Into arrays of zeros."""
    zero = means.dtype.type(0)
    for n in prange(means.shape[0]):
        if visible[n]:
            squared = size = zero
            for i in range(3):
                squared += means[n, i] * means[n, i]
                beyond = max(math.exp(scales[n, i]) - scale_threshold, zero)
                size += beyond * beyond
            distance, size = math.sqrt(squared), math.sqrt(size)
            for i in range(3):
                if distance > position_threshold and distance > zero:
                    v_means[n, i] = by_distance * means[n, i] / distance
                whole = math.exp(scales[n, i])
                if whole > scale_threshold:
                    v_scales[n, i] = by_size * whole * (whole - scale_threshold) / size
