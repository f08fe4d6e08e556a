"""Gaussians bound to the triangles of a moving mesh: triangle frames, and from triangle-local to world coordinates.

GaussianAvatars (Qian et al., CVPR 2024), section 3.1. Every Gaussian belongs to one face. Its mean, rotation and scale are
stored in the frame of that face, so that posing the mesh carries it along:

    x = k R x_l + c          q = q_R (x) q_l / |q_l|          s = k exp(s_l)

with c the triangle's centre, R its rotation and k its size. Quaternions are wxyz; `scales` are log scales; lengths are metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

_TINY = 1e-20
"""Added under square roots of squared lengths, so that a collapsed triangle gives no NaN in values or gradients."""


@dataclass(frozen=True)
class TriangleFrames:
    """Where every face is, at one or several timesteps (leading axes `*batch`)."""

    centre: Float[Tensor, "*batch faces 3"]
    """Mean of the three corners, metres."""
    rotation: Float[Tensor, "*batch faces 3 3"]
    """world_from_face; columns: along the first edge, the normal, and the in-plane direction across them."""
    size: Float[Tensor, "*batch faces"]
    """Mean of base and height, metres."""

    def __getitem__(self, index: int) -> TriangleFrames:
        """The frames of one timestep."""
        return TriangleFrames(self.centre[index], self.rotation[index], self.size[index])

    @property
    def quats(self) -> Float[Tensor, "*batch faces 4"]:
        """`rotation` as unit quaternions, wxyz."""
        if self.rotation.ndim == 3 and self.rotation.device.type == "cpu":
            from edit3dgs_ns.splats import cpu_frames  # numba: loaded where used

            return cpu_frames.quats(self.rotation)
        return rotmat_to_quat(self.rotation)


@dataclass(frozen=True)
class WorldGaussians:
    """Gaussians in world coordinates, as the rasterizer takes them."""

    means: Float[Tensor, "*batch gaussians 3"]
    quats: Float[Tensor, "*batch gaussians 4"]
    """Unit quaternions, wxyz."""
    scales: Float[Tensor, "*batch gaussians 3"]
    """Standard deviations in metres (not logarithms)."""


def triangle_frames(
    vertices: Float[Tensor, "*batch vertices 3"], faces: Int[Tensor, "faces 3"]
) -> TriangleFrames:
    """The frame of every face (GaussianAvatars, section 3.1; differentiable in `vertices`).

    a0 = norm(v1 - v0)    a1 = norm(a0 x (v2 - v0))    a2 = -norm(a1 x a0)
    R = [a0 a1 a2]        c = mean(v0, v1, v2)         k = (|v1 - v0| + |a2 . (v2 - v0)|) / 2
    """
    if vertices.ndim == 2 and vertices.device.type == "cpu":
        from edit3dgs_ns.splats import cpu_frames  # numba: loaded where used

        return TriangleFrames(*cpu_frames.frames(vertices, faces))
    v0, v1, v2 = (vertices[..., faces[:, corner], :] for corner in range(3))
    edge, side = v1 - v0, v2 - v0
    length = _length(edge)
    a0 = edge / length
    a1 = _normalised(torch.linalg.cross(a0, side))
    a2 = -_normalised(torch.linalg.cross(a1, a0))
    height = (a2 * side).sum(dim=-1).abs()
    return TriangleFrames(
        centre=(v0 + v1 + v2) / 3,
        rotation=torch.stack([a0, a1, a2], dim=-1),
        size=(length[..., 0] + height) / 2,
    )


def local_to_world(
    means: Float[Tensor, "gaussians 3"],
    quats: Float[Tensor, "gaussians 4"],
    scales: Float[Tensor, "gaussians 3"],
    binding: Int[Tensor, " gaussians"],
    frames: TriangleFrames,
) -> WorldGaussians:
    """Carries triangle-local Gaussians along with their faces.

    Args:
        means: triangle-local means, in units of the triangle's size.
        quats: triangle-local rotations, wxyz, of any length but 0.
        scales: triangle-local log scales.
        binding: the face of each Gaussian.
        frames: where the faces are; one timestep, or several in leading axes, which then lead the result too.
    """
    if means.device.type == "cpu" and frames.size.ndim == 1 and means.dtype == frames.size.dtype:
        from edit3dgs_ns.splats.cpu_binding import carry  # numba: loaded where used

        return WorldGaussians(
            *carry(means, quats, scales, binding, frames.centre, frames.rotation, frames.quats, frames.size)
        )
    size = frames.size[..., binding]
    rotation = frames.rotation[..., binding, :, :]
    turned = (rotation @ means[..., None])[..., 0]
    return WorldGaussians(
        means=size[..., None] * turned + frames.centre[..., binding, :],
        quats=quat_multiply(frames.quats[..., binding, :], F.normalize(quats, dim=-1)),
        scales=size[..., None] * torch.exp(scales),
    )


def world_to_local(
    gaussians: WorldGaussians, binding: Int[Tensor, " gaussians"], frames: TriangleFrames
) -> WorldGaussians:
    """The inverse of :func:`local_to_world`; `scales` of the result are plain local scales (take their logarithm to store them)."""
    size = frames.size[..., binding, None]
    rotation = frames.rotation[..., binding, :, :]
    offset = (gaussians.means - frames.centre[..., binding, :])[..., None]
    conjugate = frames.quats[..., binding, :] * frames.quats.new_tensor([1.0, -1.0, -1.0, -1.0])
    return WorldGaussians(
        means=(rotation.transpose(-1, -2) @ offset)[..., 0] / size,
        quats=quat_multiply(conjugate, F.normalize(gaussians.quats, dim=-1)),
        scales=gaussians.scales / size,
    )


def quat_multiply(a: Float[Tensor, "*batch 4"], b: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Hamilton product, wxyz: the rotation b, then a."""
    aw, ax, ay, az = a.unbind(dim=-1)
    bw, bx, by, bz = b.unbind(dim=-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def rotmat_to_quat(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Rotation matrices to unit quaternions, wxyz, stable and differentiable at every rotation.

    Each of the four rows below is the quaternion times four times one of its own entries (Shepperd, 1978); the row of the largest
    entry is taken, so that nothing small is ever divided by.
    """
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = (
        row.unbind(dim=-1) for row in rotation.unbind(dim=-2)
    )
    rows = torch.stack(
        [
            torch.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], dim=-1),
            torch.stack([m21 - m12, 1 + m00 - m11 - m22, m01 + m10, m02 + m20], dim=-1),
            torch.stack([m02 - m20, m01 + m10, 1 - m00 + m11 - m22, m12 + m21], dim=-1),
            torch.stack([m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22], dim=-1),
        ],
        dim=-2,
    )
    largest = rows.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    chosen = torch.take_along_dim(rows, largest[..., None, None], dim=-2)[..., 0, :]
    return F.normalize(chosen, dim=-1)


def quat_to_rotmat(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Quaternions wxyz of any length but 0 to rotation matrices."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(dim=-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def _length(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 1"]:
    return torch.sqrt((vector * vector).sum(dim=-1, keepdim=True) + _TINY)


def _normalised(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    return vector / _length(vector)
