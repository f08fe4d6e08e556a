"""Rotations as axis-angle vectors (radians), matrices and unit quaternions (wxyz): conversions, products, blends, means.

Quaternions and their negatives are the same rotation; every function here takes either. RoMa computes them
(https://github.com/naver/roma); its quaternions are xyzw, ours are wxyz as gsplat's.
"""

from __future__ import annotations

import roma
import torch
from jaxtyping import Float
from torch import Tensor


def axis_angle_to_matrix(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of axis-angle vectors, with exact values and gradients at zero.

    By way of quaternions: RoMa's direct conversion is of first order below 1e-6 radians.
    """
    return roma.unitquat_to_rotmat(roma.rotvec_to_unitquat(axis_angle))


def axis_angle_to_quat(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternion of an axis-angle vector."""
    return roma.quat_xyzw_to_wxyz(roma.rotvec_to_unitquat(axis_angle))


def quat_to_axis_angle(quat: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """Axis-angle vector, at most pi long, of a quaternion of any length but zero."""
    return roma.unitquat_to_rotvec(roma.quat_normalize(roma.quat_wxyz_to_xyzw(quat)))


def multiplied(a: Float[Tensor, "*batch 4"], b: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*batch 4"]:
    """The rotation b, then a (Hamilton's product a b)."""
    a, b = torch.broadcast_tensors(a, b)
    product = roma.quat_product(roma.quat_wxyz_to_xyzw(a), roma.quat_wxyz_to_xyzw(b))
    return roma.quat_xyzw_to_wxyz(product)


def inverse(quat: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """The opposite rotation of a unit quaternion."""
    return roma.quat_xyzw_to_wxyz(roma.quat_conjugation(roma.quat_wxyz_to_xyzw(quat)))


def euler_xyz_to_axis_angle(angles: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Axis-angle vector of the product R_x(a) R_y(b) R_z(c) of angles (a, b, c) in radians (intrinsic XYZ)."""
    return roma.euler_to_rotvec("XYZ", angles)


def mean_rotation(axis_angle: Float[Tensor, "T 3"]) -> Float[Tensor, " 3"]:
    """The mean of rotations: the greatest eigenvector of the sum of q q^T (Markley et al. 2007, "Averaging quaternions")."""
    quats = axis_angle_to_quat(axis_angle.double())
    _, vectors = torch.linalg.eigh(quats.T @ quats)
    return quat_to_axis_angle(vectors[:, -1]).to(axis_angle)


def slerp_axis_angle(
    a: Float[Tensor, "*batch 3"], b: Float[Tensor, "*batch 3"], share: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch 3"]:
    """Rotation at a share of the shortest way from ``a`` to ``b`` (Shoemake 1985, slerp), all axis-angle."""
    away = roma.rotvec_composition((roma.rotvec_inverse(a), b))  # the shortest turn from a to b
    return roma.rotvec_composition((a, share[..., None] * away))
