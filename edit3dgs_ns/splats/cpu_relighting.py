"""Relighting on a CPU where nothing is trained: one pass over the colours, where PyTorch takes several."""

from __future__ import annotations

from jaxtyping import Float, Int
from numba import prange
from torch import Tensor

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
