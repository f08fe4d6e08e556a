"""Real spherical harmonics in PyTorch: their values, and the rotation of coefficients.

Order, signs and constants are those of 3D Gaussian Splatting (Kerbl et al. 2023), as in `cpu_sh` and in gsplat: a colour is
1/2 + sum_k c_k B_k(d), with d the unit vector from the camera to the Gaussian.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

MAX_DEGREE = 3
DEGREE_0 = 0.28209479177387814
"""The one function of degree 0, 1 / (2 sqrt(pi))."""


def bases_of(degree: int) -> int:
    """Number of functions up to a degree."""
    return (degree + 1) ** 2


def degree_of(bases: int) -> int:
    """The degree of a number of functions."""
    return math.isqrt(bases) - 1


def plain_colors(rgb: Float[Tensor, "gaussians 3"]) -> Float[Tensor, "gaussians 1 3"]:
    """Coefficients of colours that do not depend on the view direction."""
    return (rgb[:, None] - 0.5) / DEGREE_0


def sh_basis(directions: Float[Tensor, "directions 3"], degree: int) -> Float[Tensor, "directions bases"]:
    """Values of all functions up to `degree` (0 to 3) at unit vectors."""
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, DEGREE_0)]
    if degree >= 1:
        values += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        values += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * z * z - 1),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if degree >= 3:
        values += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (5 * z * z - 1),
            0.3731763325901154 * z * (5 * z * z - 3),
            -0.4570457994644658 * x * (5 * z * z - 1),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(values, dim=-1)


def sh_rotation(rotation: Float[Tensor, "3 3"], degree: int) -> Float[Tensor, "bases bases"]:
    """The matrix D for which `D @ c` are the coefficients of a rotated scene whose own are `c`.

    A rotated Gaussian shows in the direction d what it showed in R^T d: B(d) D c = B(R^T d) c for all d. The functions of a degree
    only mix among themselves under rotation (Green, Spherical Harmonic Lighting, 2003, "Rotating SH Functions"), so such a D
    exists, and any set of directions that tells the functions apart determines it: no recurrences are needed.

    Args:
        rotation: orthonormal, new_from_old.
        degree: 0 to 3.

    Returns:
        In float64, on the CPU.
    """
    directions = _spread_directions(4 * bases_of(MAX_DEGREE))
    turned = directions @ rotation.detach().cpu().double()  # rows: (R^T d)^T
    return torch.linalg.lstsq(sh_basis(directions, degree), sh_basis(turned, degree)).solution


def _spread_directions(count: int) -> Float[Tensor, "directions 3"]:
    """Unit vectors evenly over the sphere, in float64: a spiral of the golden angle."""
    places = torch.arange(count, dtype=torch.float64)
    z = 1 - (2 * places + 1) / count
    angle = places * math.pi * (3 - math.sqrt(5))
    ring = torch.sqrt(1 - z * z)
    return torch.stack([ring * angle.cos(), ring * angle.sin(), z], dim=-1)
