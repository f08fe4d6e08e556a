"""The CPU rasterizer: Numba kernels as autograd functions. `rasterize.rasterize` is the way in.

Three stages, each with an analytic backward pass: `project`, `spherical_harmonics` and `blend`. Every kernel
gives the same bits for any number of threads (`numba.set_num_threads`), because sums that cross threads are
taken over fixed parts in a fixed order. float32 and float64 are compiled separately, on first use.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from edit3dgs_ns.splats import cpu_binning as binning
from edit3dgs_ns.splats import cpu_projection as projection
from edit3dgs_ns.splats import cpu_sh as sh
from edit3dgs_ns.splats import cpu_tiles as tiles

_PARTS = 32
"""Parts in which gradients that all Gaussians share (cameras) are summed."""


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _gradient(gradient: Tensor | None, like: np.ndarray) -> np.ndarray:
    return np.zeros_like(like) if gradient is None else _array(gradient)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, means, quats, scales, viewmats, Ks, width, height, eps2d, near, far, radius_clip):
        inputs = tuple(_array(x) for x in (means, quats, scales, viewmats, Ks))
        dtype = inputs[0].dtype
        shape = (len(inputs[3]), len(inputs[0]))
        radii = np.empty(shape, np.int32)
        means2d, conics = np.empty((*shape, 2), dtype), np.empty((*shape, 3), dtype)
        depths, compensations = np.empty(shape, dtype), np.empty(shape, dtype)
        real = dtype.type
        ctx.image = (width, height, real(eps2d))
        projection.project_forward(
            *inputs, width, height, real(eps2d), real(near), real(far), real(radius_clip),
            radii, means2d, depths, conics, compensations,
        )  # fmt: skip
        ctx.arrays = (*inputs, radii, conics.copy(), compensations)
        outputs = tuple(torch.from_numpy(x) for x in (means2d, depths, conics, compensations, radii))
        ctx.mark_non_differentiable(outputs[-1])
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, v_means2d, v_depths, v_conics, v_compensations, _):
        means, quats, scales, viewmats, Ks, radii, conics, compensations = ctx.arrays
        v_means, v_quats, v_scales = np.empty_like(means), np.empty_like(quats), np.empty_like(scales)
        v_viewmats = np.empty((_PARTS, *viewmats.shape), viewmats.dtype)
        projection.project_backward(
            means, quats, scales, viewmats, Ks, *ctx.image, radii, conics, compensations,
            _gradient(v_means2d, conics[..., :2]), _gradient(v_depths, compensations),
            _gradient(v_conics, conics), _gradient(v_compensations, compensations),
            v_means, v_quats, v_scales, v_viewmats,
        )  # fmt: skip
        gradients = (v_means, v_quats, v_scales, v_viewmats.sum(0))
        return (*(torch.from_numpy(x) for x in gradients), *([None] * 7))


class _Colors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients, means, centers, radii, degree):
        inputs = tuple(_array(x) for x in (coefficients, means, centers, radii))
        colors = np.empty((*radii.shape, 3), inputs[0].dtype)
        sh.colors_forward(degree, *inputs, colors)
        ctx.degree, ctx.arrays = degree, (*inputs, colors)
        return torch.from_numpy(colors)

    @staticmethod
    def backward(ctx: Any, v_colors):
        coefficients, means, centers, radii, colors = ctx.arrays
        v_coefficients, v_means = np.empty_like(coefficients), np.empty_like(means)
        v_centers = np.empty((_PARTS, *centers.shape), centers.dtype)
        sh.colors_backward(
            ctx.degree, coefficients, means, centers, radii, colors, _array(v_colors),
            v_coefficients, v_means, v_centers,
        )  # fmt: skip
        return (*(torch.from_numpy(x) for x in (v_coefficients, v_means, v_centers.sum(0))), None, None)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`np.empty` that begins with a cache line."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


@dataclass(frozen=True)
class Bins:
    """The visible Gaussians of each camera by depth, and which of them each tile draws: see `cpu_binning`."""

    order: np.ndarray
    """(C, N) indices of Gaussians, front to back."""
    visible: np.ndarray
    """(C,) how many entries of `order` count."""
    records: np.ndarray
    """(C, N, 16 or more) what is drawn, in that order."""
    first_slot: np.ndarray
    """(C, N + 1) a Gaussian's pairs, numbered Gaussian by Gaussian."""
    tile_start: np.ndarray
    """(C * tiles + 1,) a tile's pairs, numbered tile by tile."""
    pairs: np.ndarray
    """(pairs,) by tile: rank of the Gaussian and the rows of the tile that it reaches."""
    slots: np.ndarray
    """(pairs,) by tile: number of the pair in `first_slot`'s order."""


def bin_gaussians(
    means2d: np.ndarray,
    conics: np.ndarray,
    opacities: np.ndarray,
    colors: np.ndarray,
    radii: np.ndarray,
    depths: np.ndarray,
    width: int,
    height: int,
) -> Bins:
    """Sort by depth and list per tile. Shapes as for `blend`."""
    cameras, count = radii.shape
    dtype = means2d.dtype
    wide = dtype == np.float64
    keys = depths.view(np.int64 if wide else np.int32)
    order, ranks = np.empty((cameras, count), np.int32), np.empty((cameras, count), np.int32)
    visible = np.empty(cameras, np.int64)
    binning.depth_order(keys, radii, order, ranks, visible, 64 if wide else 32)

    length = -(-(binning.RECORD + max(colors.shape[2], tiles.FUSED)) // 16) * 16
    records = _aligned((cameras, count, length), dtype)
    bands_of, pairs_of = np.empty((cameras, count), np.int32), np.empty((cameras, count), np.int32)
    first_span, first_slot = (np.empty((cameras, count + 1), np.int64) for _ in range(2))
    binning.fill_records(ranks, radii, means2d, conics, opacities, colors, width, height, records, bands_of)
    spans = np.empty((binning.scan_bands(visible, bands_of, first_span), 2), np.int32)
    tile_count = -(-width // binning.TILE_WIDTH) * -(-height // binning.TILE_HEIGHT)
    histogram = np.empty((cameras, binning.CHUNKS, tile_count), np.int64)
    binning.find_spans(visible, records, first_span, width, spans, pairs_of, histogram)
    tile_start = np.empty(cameras * tile_count + 1, np.int64)
    total = binning.scan_pairs(visible, pairs_of, histogram, first_slot, tile_start)
    pairs, slots = np.empty(total, np.int64), np.empty(total, np.int64)
    binning.scatter_pairs(visible, records, first_span, spans, width, first_slot, histogram, pairs, slots)
    return Bins(order, visible, records, first_slot, tile_start, pairs, slots)


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, means2d, conics, opacities, colors, backgrounds, radii, depths, width, height, absolute, absgrad
    ):  # fmt: skip
        bins = bin_gaussians(
            _array(means2d), _array(conics), _array(opacities), _array(colors), _array(radii), _array(depths),
            width, height,
        )  # fmt: skip
        cameras, _, channels = colors.shape
        dtype = bins.records.dtype
        image = np.empty((cameras, height, width, channels), dtype)
        transmittance = np.empty((cameras, height, width), dtype)
        tile_end = np.empty(len(bins.tile_start) - 1, np.int64)
        tiles.blend_forward(
            bins.records, bins.tile_start, bins.pairs, _array(backgrounds), width, height,
            image, transmittance, tile_end,
        )  # fmt: skip
        ctx.bins, ctx.size, ctx.tile_end, ctx.transmittance = bins, (width, height), tile_end, transmittance
        ctx.absolute, ctx.absgrad = absolute, absgrad
        output = torch.from_numpy(image)
        ctx.save_for_backward(output)
        return output, torch.from_numpy(1 - transmittance)[..., None]

    @staticmethod
    def backward(ctx: Any, v_image, v_alpha):
        bins = ctx.bins
        image = _array(ctx.saved_tensors[0])
        dtype, channels = image.dtype, image.shape[3]
        shape = bins.order.shape
        v_image = _array(v_image)
        sums = np.empty((len(bins.pairs), max(tiles.SUMS + channels, tiles.STORED)), dtype)
        tiles.blend_backward(
            bins.records, bins.tile_start, ctx.tile_end, bins.pairs, bins.slots, *ctx.size,
            image, ctx.transmittance, v_image, _array(v_alpha), ctx.absolute, sums,
        )  # fmt: skip
        v_means2d, v_absolute, v_conics = (np.zeros((*shape, size), dtype) for size in (2, 2, 3))
        v_opacities, v_colors = np.zeros(shape, dtype), np.zeros((*shape, channels), dtype)
        tiles.gather_gradients(
            bins.order, bins.visible, bins.records, bins.first_slot, sums,
            v_means2d, v_absolute, v_conics, v_opacities, v_colors,
        )  # fmt: skip
        if ctx.absgrad is not None:
            ctx.absgrad.append(torch.from_numpy(v_absolute))
        v_backgrounds = None
        if ctx.needs_input_grad[4]:
            v_backgrounds = torch.from_numpy(np.einsum("chwk,chw->ck", v_image, ctx.transmittance))
        gradients = tuple(torch.from_numpy(x) for x in (v_means2d, v_conics, v_opacities, v_colors))
        return (*gradients, v_backgrounds, *([None] * 6))


def project(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    viewmats: Float[Tensor, "C 4 4"],
    Ks: Float[Tensor, "C 3 3"],
    width: int,
    height: int,
    *,
    eps2d: float,
    near_plane: float,
    far_plane: float,
    radius_clip: float,
) -> tuple[
    Float[Tensor, "C N 2"],
    Float[Tensor, "C N"],
    Float[Tensor, "C N 3"],
    Float[Tensor, "C N"],
    Int[Tensor, "C N"],
]:
    """Project to the image: means2d (pixels), depths, conics, compensations, radii (pixels; 0: cannot be
    seen)."""
    return _Project.apply(
        means, quats, scales, viewmats, Ks, width, height, eps2d, near_plane, far_plane, radius_clip
    )


def spherical_harmonics(
    coefficients: Float[Tensor, "N K 3"],
    means: Float[Tensor, "N 3"],
    centers: Float[Tensor, "C 3"],
    radii: Int[Tensor, "C N"],
    degree: int,
) -> Float[Tensor, "C N 3"]:
    """Colours max(0, SH + 1/2) seen from camera centres; zero where the radius is."""
    return _Colors.apply(coefficients, means, centers, radii, degree)


def blend(
    means2d: Float[Tensor, "C N 2"],
    conics: Float[Tensor, "C N 3"],
    opacities: Float[Tensor, "C N"],
    colors: Float[Tensor, "C N D"],
    backgrounds: Float[Tensor, "C D"],
    radii: Int[Tensor, "C N"],
    depths: Float[Tensor, "C N"],
    width: int,
    height: int,
    absgrad: bool = False,
) -> tuple[Float[Tensor, "C H W D"], Float[Tensor, "C H W 1"]]:
    """Blend front to back. With `absgrad`, the backward pass sets `means2d.absgrad` as gsplat does."""
    received: list[Tensor] | None = None
    if absgrad and means2d.requires_grad:
        received = []
        # A hook, not the context: autograd hands the function another object than the one in the caller's
        # hands. And a weak reference: the hook belongs to the tensor.
        handle = weakref.ref(means2d)
        means2d.register_hook(
            lambda _: setattr(handle(), "absgrad", received[-1]) if handle() is not None else None
        )
    return _Blend.apply(
        means2d, conics, opacities, colors, backgrounds, radii, depths, width, height, absgrad, received
    )
