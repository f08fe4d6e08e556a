"""`binding.local_to_world` on the CPU: one pass over the Gaussians instead of a dozen, and its gradient.

For Gaussian n on face f, with rotation R, quaternion q_R (the same rotation), centre c and size k of the face:
    x = k R x_l + c        q = q_R (x) q_l / |q_l|        s = k exp(s_l)

The gradient of a face is summed over its Gaussians in their order, so that it does not depend on the number of threads.
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


def carry(
    means: Float[Tensor, "gaussians 3"],
    quats: Float[Tensor, "gaussians 4"],
    scales: Float[Tensor, "gaussians 3"],
    binding: Int[Tensor, " gaussians"],
    centre: Float[Tensor, "faces 3"],
    rotation: Float[Tensor, "faces 3 3"],
    face_quats: Float[Tensor, "faces 4"],
    size: Float[Tensor, " faces"],
) -> tuple[Float[Tensor, "gaussians 3"], Float[Tensor, "gaussians 4"], Float[Tensor, "gaussians 3"]]:
    """Means, quaternions (wxyz) and scales in world coordinates; differentiable in everything but `binding`.

    Args:
        means: triangle-local means, in units of the triangle's size.
        quats: triangle-local rotations, wxyz, of any length but 0.
        scales: triangle-local log scales.
        binding: the face of each Gaussian; checked (Numba does not).
        centre: of every face, metres.
        rotation: world_from_face.
        face_quats: `rotation` as quaternions, wxyz.
        size: of every face, metres.

    Raises:
        IndexError: a binding beyond the faces.
    """
    check_binding(binding, len(size))
    return _Carry.apply(means, quats, scales, binding, centre, rotation, face_quats, size)


def check_binding(binding: Int[Tensor, " gaussians"], faces: int) -> None:
    """Raises an IndexError for a Gaussian on none of the faces, which Numba would not notice."""
    if len(binding) and not 0 <= int(binding.min()) <= int(binding.max()) < faces:
        raise IndexError(
            f"binding names faces {int(binding.min())} to {int(binding.max())} of {faces}; expected 0 to {faces - 1}"
        )


class _Carry(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        arrays = tuple(x.detach().contiguous().numpy() for x in inputs)
        outputs = tuple(np.empty_like(x) for x in arrays[:3])
        _carry(*arrays, *outputs)
        ctx.arrays = arrays
        means, quats, scales = (torch.from_numpy(x) for x in outputs)
        return means, quats, scales

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        arrays = ctx.arrays
        received = tuple(x.contiguous().numpy() for x in gradients)
        local = tuple(np.empty_like(x) for x in arrays[:3])
        _carry_backward(*arrays, *received, *local)
        results: list[Tensor | None] = [*(torch.from_numpy(x) for x in local), None]
        if not any(ctx.needs_input_grad[4:]):
            return (*results, None, None, None, None)
        faces = tuple(np.zeros_like(x) for x in arrays[4:])
        order, first = _by_face(arrays[3], len(arrays[7]))
        _faces_backward(*arrays, *received, order, first, *faces)
        return (*results, *(torch.from_numpy(x) for x in faces))


@kernel(parallel=True)
def _carry(means, quats, scales, binding, centre, rotation, face_quats, size, x, q, s):
    for n in prange(means.shape[0]):
        f = binding[n]
        k = size[f]
        for i in range(3):
            turned = (
                rotation[f, i, 0] * means[n, 0]
                + rotation[f, i, 1] * means[n, 1]
                + rotation[f, i, 2] * means[n, 2]
            )
            x[n, i] = k * turned + centre[f, i]
            s[n, i] = k * math.exp(scales[n, i])
        inverse = _inverse_length(quats, n)
        aw, ax, ay, az = face_quats[f, 0], face_quats[f, 1], face_quats[f, 2], face_quats[f, 3]
        bw, bx, by, bz = (
            quats[n, 0] * inverse,
            quats[n, 1] * inverse,
            quats[n, 2] * inverse,
            quats[n, 3] * inverse,
        )
        q[n, 0] = aw * bw - ax * bx - ay * by - az * bz
        q[n, 1] = aw * bx + ax * bw + ay * bz - az * by
        q[n, 2] = aw * by - ax * bz + ay * bw + az * bx
        q[n, 3] = aw * bz + ax * by - ay * bx + az * bw


@kernel()
def _inverse_length(quats, n):
    dt = quats.dtype.type
    squared = quats[n, 0] * quats[n, 0] + quats[n, 1] * quats[n, 1]
    squared += quats[n, 2] * quats[n, 2] + quats[n, 3] * quats[n, 3]
    return dt(1) / max(math.sqrt(squared), dt(1e-12))  # as torch.nn.functional.normalize


@kernel(parallel=True)
def _carry_backward(
    means, quats, scales, binding, centre, rotation, face_quats, size, v_x, v_q, v_s, v_means, v_quats, v_scales
):  # fmt: skip
    """Gradients of what is local to the Gaussians."""
    for n in prange(means.shape[0]):
        f = binding[n]
        k = size[f]
        for i in range(3):
            v_means[n, i] = k * (
                rotation[f, 0, i] * v_x[n, 0] + rotation[f, 1, i] * v_x[n, 1] + rotation[f, 2, i] * v_x[n, 2]
            )
            v_scales[n, i] = v_s[n, i] * k * math.exp(scales[n, i])
        inverse = _inverse_length(quats, n)
        aw, ax, ay, az = face_quats[f, 0], face_quats[f, 1], face_quats[f, 2], face_quats[f, 3]
        gw, gx, gy, gz = v_q[n, 0], v_q[n, 1], v_q[n, 2], v_q[n, 3]
        # The product is linear: its transpose in b is the product with a's conjugate.
        w = aw * gw + ax * gx + ay * gy + az * gz
        x = -ax * gw + aw * gx + az * gy - ay * gz
        y = -ay * gw - az * gx + aw * gy + ax * gz
        z = -az * gw + ay * gx - ax * gy + aw * gz
        along = w * quats[n, 0] + x * quats[n, 1] + y * quats[n, 2] + z * quats[n, 3]
        along *= inverse * inverse
        v_quats[n, 0] = (w - along * quats[n, 0]) * inverse
        v_quats[n, 1] = (x - along * quats[n, 1]) * inverse
        v_quats[n, 2] = (y - along * quats[n, 2]) * inverse
        v_quats[n, 3] = (z - along * quats[n, 3]) * inverse


@kernel()
def _by_face(binding, faces):
    """The Gaussians face by face, in order (a counting sort), and where each face begins."""
    first = np.zeros(faces + 1, np.int64)
    for n in range(binding.shape[0]):
        first[binding[n] + 1] += 1
    for f in range(faces):
        first[f + 1] += first[f]
    at = first[:faces].copy()
    order = np.empty(binding.shape[0], np.int64)
    for n in range(binding.shape[0]):
        order[at[binding[n]]] = n
        at[binding[n]] += 1
    return order, first


@kernel(parallel=True)
def _faces_backward(
    means, quats, scales, binding, centre, rotation, face_quats, size, v_x, v_q, v_s, order, first,
    v_centre, v_rotation, v_face_quats, v_size,
):  # fmt: skip
    """Add up the gradients of the faces, into zeros."""
    for f in prange(size.shape[0]):
        k = size[f]
        for at in range(first[f], first[f + 1]):
            n = order[at]
            for i in range(3):
                turned = (
                    rotation[f, i, 0] * means[n, 0]
                    + rotation[f, i, 1] * means[n, 1]
                    + rotation[f, i, 2] * means[n, 2]
                )
                v_centre[f, i] += v_x[n, i]
                v_size[f] += turned * v_x[n, i] + math.exp(scales[n, i]) * v_s[n, i]
                for j in range(3):
                    v_rotation[f, i, j] += k * means[n, j] * v_x[n, i]
            inverse = _inverse_length(quats, n)
            bw, bx, by, bz = (
                quats[n, 0] * inverse,
                quats[n, 1] * inverse,
                quats[n, 2] * inverse,
                quats[n, 3] * inverse,
            )
            gw, gx, gy, gz = v_q[n, 0], v_q[n, 1], v_q[n, 2], v_q[n, 3]
            v_face_quats[f, 0] += gw * bw + gx * bx + gy * by + gz * bz
            v_face_quats[f, 1] += -gw * bx + gx * bw - gy * bz + gz * by
            v_face_quats[f, 2] += -gw * by + gx * bz + gy * bw - gz * bx
            v_face_quats[f, 3] += -gw * bz - gx * by + gy * bx + gz * bw
