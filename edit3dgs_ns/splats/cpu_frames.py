"""`binding.triangle_frames` and `binding.rotmat_to_quat` on the CPU: one pass over the faces, and its gradient.

With e = v1 - v0 and s = v2 - v0, and a0, a1, a2 the columns of the rotation:
    a0 = e / |e|        a1 = norm(a0 x s)        a2 = norm(a0 x a1)        k = (|e| + |a2 . s|) / 2

A vertex's gradient is summed over its faces in their order, so that it does not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numba import prange
from torch import Tensor

from edit3dgs_ns.splats.jit import kernel


def frames(
    vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"]
) -> tuple[Float[Tensor, "faces 3"], Float[Tensor, "faces 3 3"], Float[Tensor, " faces"]]:
    """Centre (metres), world_from_face rotation and size (metres) of every face; differentiable in `vertices`.

    Raises:
        IndexError: a face names a vertex that is not there.
    """
    if len(faces) and not 0 <= int(faces.min()) <= int(faces.max()) < len(vertices):
        raise IndexError(f"faces name vertices {int(faces.min())} to {int(faces.max())} of {len(vertices)}")
    return _Frames.apply(vertices, faces)


def quats(rotation: Float[Tensor, "faces 3 3"]) -> Float[Tensor, "faces 4"]:
    """Unit quaternions, wxyz; differentiable."""
    return _Quats.apply(rotation)


class _Frames(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        points, corners = vertices.detach().contiguous().numpy(), faces.contiguous().numpy()
        count = len(corners)
        centre, rotation = np.empty((count, 3), points.dtype), np.empty((count, 3, 3), points.dtype)
        size = np.empty(count, points.dtype)
        _frames(points, corners, centre, rotation, size)
        ctx.arrays = points, corners, rotation
        return torch.from_numpy(centre), torch.from_numpy(rotation), torch.from_numpy(size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        points, corners, rotation = ctx.arrays
        by_corner = np.empty((len(corners), 3, 3), points.dtype)
        _frames_backward(points, corners, rotation, *(g.contiguous().numpy() for g in gradients), by_corner)
        result = np.zeros_like(points)
        _sum_at_vertices(corners, by_corner, result)
        return torch.from_numpy(result), None


class _Quats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rotation: Float[Tensor, "faces 3 3"]) -> Tensor:
        matrices = rotation.detach().contiguous().numpy()
        quats = np.empty((len(matrices), 4), matrices.dtype)
        _quats(matrices, quats)
        ctx.arrays = matrices, quats
        return torch.from_numpy(quats)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        matrices, quats = ctx.arrays
        result = np.empty_like(matrices)
        _quats_backward(matrices, quats, gradient.contiguous().numpy(), result)
        return torch.from_numpy(result)


@kernel(parallel=True)
def _frames(vertices, faces, centre, rotation, size):
    dt = vertices.dtype.type
    tiny = dt(1e-20)  # as in `binding`: a collapsed triangle gives no NaN
    for f in prange(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ex, ey, ez = (
            vertices[b, 0] - vertices[a, 0],
            vertices[b, 1] - vertices[a, 1],
            vertices[b, 2] - vertices[a, 2],
        )
        sx, sy, sz = (
            vertices[c, 0] - vertices[a, 0],
            vertices[c, 1] - vertices[a, 1],
            vertices[c, 2] - vertices[a, 2],
        )
        length = math.sqrt(ex * ex + ey * ey + ez * ez + tiny)
        ex, ey, ez = ex / length, ey / length, ez / length
        nx, ny, nz = ey * sz - ez * sy, ez * sx - ex * sz, ex * sy - ey * sx
        normal = math.sqrt(nx * nx + ny * ny + nz * nz + tiny)
        nx, ny, nz = nx / normal, ny / normal, nz / normal
        hx, hy, hz = ey * nz - ez * ny, ez * nx - ex * nz, ex * ny - ey * nx
        across = math.sqrt(hx * hx + hy * hy + hz * hz + tiny)
        hx, hy, hz = hx / across, hy / across, hz / across
        rotation[f, 0, 0], rotation[f, 1, 0], rotation[f, 2, 0] = ex, ey, ez
        rotation[f, 0, 1], rotation[f, 1, 1], rotation[f, 2, 1] = nx, ny, nz
        rotation[f, 0, 2], rotation[f, 1, 2], rotation[f, 2, 2] = hx, hy, hz
        size[f] = dt(0.5) * (length + abs(hx * sx + hy * sy + hz * sz))
        for i in range(3):
            centre[f, i] = (vertices[a, i] + vertices[b, i] + vertices[c, i]) / dt(3)


@kernel()
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@kernel()
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@kernel()
def _through_norm(gradient, unit, length):
    """The gradient by a vector, given that by the unit vector along it."""
    along = _dot(gradient, unit)
    return (
        (gradient[0] - along * unit[0]) / length,
        (gradient[1] - along * unit[1]) / length,
        (gradient[2] - along * unit[2]) / length,
    )


@kernel(parallel=True)
def _frames_backward(vertices, faces, rotation, v_centre, v_rotation, v_size, by_corner):
    dt = vertices.dtype.type
    tiny, half = dt(1e-20), dt(0.5)
    for f in prange(faces.shape[0]):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        edge = (b[0] - a[0], b[1] - a[1], b[2] - a[2])
        side = (c[0] - a[0], c[1] - a[1], c[2] - a[2])
        a0 = (rotation[f, 0, 0], rotation[f, 1, 0], rotation[f, 2, 0])
        a1 = (rotation[f, 0, 1], rotation[f, 1, 1], rotation[f, 2, 1])
        a2 = (rotation[f, 0, 2], rotation[f, 1, 2], rotation[f, 2, 2])
        length = math.sqrt(_dot(edge, edge) + tiny)
        normal = _cross(a0, side)
        across = _cross(a0, a1)
        by_size = half * v_size[f]
        # The height |a2 . s|, whose derivative at 0 is taken to be 0, as PyTorch does.
        height = _dot(a2, side)
        by_height = by_size * dt(np.sign(height))
        g2 = (
            v_rotation[f, 0, 2] + by_height * side[0],
            v_rotation[f, 1, 2] + by_height * side[1],
            v_rotation[f, 2, 2] + by_height * side[2],
        )
        by_across = _through_norm(g2, a2, math.sqrt(_dot(across, across) + tiny))
        into_a0, into_a1 = _cross(a1, by_across), _cross(by_across, a0)
        g1 = (
            v_rotation[f, 0, 1] + into_a1[0],
            v_rotation[f, 1, 1] + into_a1[1],
            v_rotation[f, 2, 1] + into_a1[2],
        )
        by_normal = _through_norm(g1, a1, math.sqrt(_dot(normal, normal) + tiny))
        more, into_side = _cross(side, by_normal), _cross(by_normal, a0)
        g0 = (
            v_rotation[f, 0, 0] + into_a0[0] + more[0],
            v_rotation[f, 1, 0] + into_a0[1] + more[1],
            v_rotation[f, 2, 0] + into_a0[2] + more[2],
        )
        by_edge = _through_norm(g0, a0, length)
        for i in range(3):
            third = v_centre[f, i] / dt(3)
            at_edge = by_edge[i] + by_size * a0[i]
            at_side = into_side[i] + by_height * a2[i]
            by_corner[f, 0, i] = third - at_edge - at_side
            by_corner[f, 1, i] = third + at_edge
            by_corner[f, 2, i] = third + at_side


@kernel()
def _sum_at_vertices(faces, by_corner, result):
    for f in range(faces.shape[0]):
        for corner in range(3):
            v = faces[f, corner]
            for i in range(3):
                result[v, i] += by_corner[f, corner, i]


@kernel()
def _diagonal(m):
    """Four times the squared entries of the quaternion, and the number of the largest."""
    one = m.dtype.type(1)
    diagonal = (
        one + m[0, 0] + m[1, 1] + m[2, 2],
        one + m[0, 0] - m[1, 1] - m[2, 2],
        one - m[0, 0] + m[1, 1] - m[2, 2],
        one - m[0, 0] - m[1, 1] + m[2, 2],
    )
    largest = 0
    for i in range(1, 4):
        if diagonal[i] > diagonal[largest]:
            largest = i
    return diagonal, largest


@kernel(parallel=True)
def _quats(rotation, quats):
    dt = rotation.dtype.type
    for f in prange(rotation.shape[0]):
        m = rotation[f]
        diagonal, largest = _diagonal(m)
        x, y, z = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
        xy, xz, yz = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
        if largest == 0:
            row = (diagonal[0], x, y, z)
        elif largest == 1:
            row = (x, diagonal[1], xy, xz)
        elif largest == 2:
            row = (y, xy, diagonal[2], yz)
        else:
            row = (z, xz, yz, diagonal[3])
        scale = dt(1) / math.sqrt(row[0] * row[0] + row[1] * row[1] + row[2] * row[2] + row[3] * row[3])
        for i in range(4):
            quats[f, i] = row[i] * scale


@kernel(parallel=True)
def _quats_backward(rotation, quats, gradient, result):
    dt = rotation.dtype.type
    for f in prange(rotation.shape[0]):
        m = rotation[f]
        diagonal, largest = _diagonal(m)
        # The row of the largest entry, divided by its length; that entry of the quaternion is its own length's share.
        length = diagonal[largest] / quats[f, largest]
        along = dt(0)
        for i in range(4):
            along += quats[f, i] * gradient[f, i]
        g = (
            (gradient[f, 0] - along * quats[f, 0]) / length,
            (gradient[f, 1] - along * quats[f, 1]) / length,
            (gradient[f, 2] - along * quats[f, 2]) / length,
            (gradient[f, 3] - along * quats[f, 3]) / length,
        )
        # How every entry of that row depends on the matrix: on the diagonal, the differences and the sums.
        d = g[largest]
        v = result[f]
        v[0, 0] = d if largest < 2 else -d
        v[1, 1] = d if largest == 0 or largest == 2 else -d
        v[2, 2] = d if largest == 0 or largest == 3 else -d
        if largest == 0:
            x, y, z, xy, xz, yz = g[1], g[2], g[3], dt(0), dt(0), dt(0)
        elif largest == 1:
            x, y, z, xy, xz, yz = g[0], dt(0), dt(0), g[2], g[3], dt(0)
        elif largest == 2:
            x, y, z, xy, xz, yz = dt(0), g[0], dt(0), g[1], dt(0), g[3]
        else:
            x, y, z, xy, xz, yz = dt(0), dt(0), g[0], dt(0), g[1], g[2]
        v[2, 1], v[1, 2] = yz + x, yz - x
        v[0, 2], v[2, 0] = xz + y, xz - y
        v[1, 0], v[0, 1] = xy + z, xy - z
