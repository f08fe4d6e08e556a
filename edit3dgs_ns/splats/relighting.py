"""Relighting of a moving head: diffuse shading of surfaces that turn in static light.

An avatar's colours hold the light of the capture, as it fell on the head on average. When the head turns or the face deforms, every
triangle turns in that light and becomes brighter or darker; spherical harmonics of a Gaussian cannot follow, because they
know the direction of the view alone. Diffuse light is, for any surroundings, almost exactly a quadratic polynomial of the surface
normal (Ramamoorthi and Hanrahan, "An efficient representation for irradiance environment maps", SIGGRAPH 2001, section 3.2). So
one such polynomial per colour channel, shared by the whole avatar, tells how much brighter a triangle becomes:

    gain(face, t) = exp(L . (Y(n(t)) - Y(n(rest))))

with n the triangle's normal in the world and L trained; L = 0 leaves all colours as they are. The constant term cancels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edit3dgs_ns.splats.spherical_harmonics import DEGREE_0

NUM_TERMS = 8
"""Terms of a quadratic polynomial on the sphere without the constant."""
GRAY = 0.5 / DEGREE_0
"""The coefficient of degree 0 of the brightness that SH colours are counted from."""
_MAX_LOG_GAIN = 2.0
"""Nothing becomes more than exp(2) times as bright or dark."""


def normal_terms(normals: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 8"]:
    """The linear and quadratic spherical harmonics of unit vectors, up to constant factors."""
    x, y, z = normals.unbind(dim=-1)
    return torch.stack([x, y, z, x * y, y * z, x * z, 3 * z * z - 1, x * x - y * y], dim=-1)


def light_gain(
    light: Float[Tensor, "8 3"], normals: Float[Tensor, "faces 3"], rest_normals: Float[Tensor, "faces 3"]
) -> Float[Tensor, "faces 3"]:
    """How much brighter each face is than at rest, per channel; differentiable in `light` and `normals`.

    Args:
        light: the trained polynomial.
        normals: unit normals in the world.
        rest_normals: the same of the head at rest.
    """
    change = normal_terms(normals) - normal_terms(rest_normals)
    return torch.exp((change @ light).clamp(-_MAX_LOG_GAIN, _MAX_LOG_GAIN))


def apply_gain(
    colors: Float[Tensor, "gaussians bases 3"],
    gain: Float[Tensor, "faces 3"],
    binding: Int[Tensor, " gaussians"],
) -> Float[Tensor, "gaussians bases 3"]:
    """SH coefficients whose colour, `Y . colors + 0.5`, is `gain` times as bright; differentiable in both.

    Args:
        colors: SH coefficients.
        gain: of each face, per channel.
        binding: the face of each Gaussian.
    """
    factor = gain[binding][:, None]
    offset = (factor - 1) * GRAY
    return torch.cat([colors[:, :1] * factor + offset, colors[:, 1:] * factor], dim=1)
