"""Rotations as axis-angle vectors (radians) and unit quaternions (wxyz): conversions, products, blends, means.

Quaternions and their negatives are the same rotation; every function here takes either.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def axis_angle_to_quat(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternion of an axis-angle vector."""
    angle = axis_angle.norm(dim=-1, keepdim=True)
    half_sinc = 0.5 * torch.sinc(angle / (2 * torch.pi))  # sin(angle/2) / angle
    return torch.cat([torch.cos(angle / 2), half_sinc * axis_angle], -1)


def quat_to_axis_angle(quat: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """Axis-angle vector, at most pi long, of a quaternion of any length but zero."""
    quat = torch.where(quat[..., :1] < 0, -quat, quat)
    sine = quat[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, quat[..., :1])
    small = sine < 1e-8
    scale = torch.where(
        small, 2 / quat[..., :1].clamp(min=0.5), angle / torch.where(small, torch.ones_like(sine), sine)
    )
    return scale * quat[..., 1:]


def multiplied(a: Float[Tensor, "*batch 4"], b: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*batch 4"]:
    """The rotation b, then a (Hamilton's product a b)."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def inverse(quat: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """The opposite rotation of a unit quaternion."""
    return quat * quat.new_tensor([1.0, -1.0, -1.0, -1.0])


def euler_xyz_to_quat(angles: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """The rotation matrix product R_x(a) R_y(b) R_z(c) of angles (a, b, c) in radians (intrinsic XYZ)."""
    x, y, z = (
        axis_angle_to_quat(angles * torch.eye(3, dtype=angles.dtype, device=angles.device)[axis])
        for axis in range(3)
    )
    return multiplied(multiplied(x, y), z)


def mean_rotation(axis_angle: Float[Tensor, "T 3"]) -> Float[Tensor, " 3"]:
    """The mean of rotations: the greatest eigenvector of the sum of q q^T (Markley et al. 2007, "Averaging quaternions")."""
    quats = axis_angle_to_quat(axis_angle.double())
    _, vectors = torch.linalg.eigh(quats.T @ quats)
    return quat_to_axis_angle(vectors[:, -1]).to(axis_angle)


def slerp_axis_angle(
    a: Float[Tensor, "*batch 3"], b: Float[Tensor, "*batch 3"], share: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch 3"]:
    """Rotation at a share of the shortest way from ``a`` to ``b`` (Shoemake 1985, slerp), all axis-angle."""
    qa, qb = axis_angle_to_quat(a), axis_angle_to_quat(b)
    cosine = (qa * qb).sum(-1, keepdim=True)
    qb = torch.where(cosine < 0, -qb, qb)
    angle = torch.atan2((qa - qb).norm(dim=-1, keepdim=True), (qa + qb).norm(dim=-1, keepdim=True)) * 2
    share = share[..., None]
    sine = torch.sin(angle)
    flat = sine < 1e-4  # nearly equal: blend linearly
    safe = torch.where(flat, torch.ones_like(sine), sine)
    wa = torch.where(flat, 1 - share, torch.sin((1 - share) * angle) / safe)
    wb = torch.where(flat, share, torch.sin(share * angle) / safe)
    return quat_to_axis_angle(wa * qa + wb * qb)
