"""Projection of 3D Gaussians to the image plane on the CPU, and its gradient.

EWA splatting (Zwicker et al. 2002; Kerbl et al. 2023, equation 5) with gsplat's conventions: quaternions wxyz
of any length, the camera looks along +z (OpenCV), the ray direction of the linearisation is clamped to 1.3
times the half field of view, and 0.3 pixels^2 are added to the 2D covariance.

For one Gaussian, with W the camera's rotation, S the scales and Q the rotation matrix:
    U = W Q diag(S),  P = J U (2 x 3),  cov = P P^T + eps2d I,  conic = cov^-1 = [[A, B], [B, C]].
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from edit3dgs_ns.splats.jit import kernel

_CHUNKS = 32
"""Parts in which the gradient of the cameras is summed: fixed, so that the sum does not depend on the
threads."""


@kernel()
def _rotation(q, rotation):
    """Write the rotation matrix of a wxyz quaternion; returns 1 / |q|."""
    dt = q.dtype.type
    one, two = dt(1), dt(2)
    inverse_norm = one / math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    w, x, y, z = q[0] * inverse_norm, q[1] * inverse_norm, q[2] * inverse_norm, q[3] * inverse_norm
    rotation[0, 0] = one - two * (y * y + z * z)
    rotation[0, 1] = two * (x * y - w * z)
    rotation[0, 2] = two * (x * z + w * y)
    rotation[1, 0] = two * (x * y + w * z)
    rotation[1, 1] = one - two * (x * x + z * z)
    rotation[1, 2] = two * (y * z - w * x)
    rotation[2, 0] = two * (x * z - w * y)
    rotation[2, 1] = two * (y * z + w * x)
    rotation[2, 2] = one - two * (x * x + y * y)
    return inverse_norm


@kernel()
def _jacobian(point, K, width, height, J):
    """Write J (2 x 3) at a camera-space point; returns whether x/z and y/z lie inside the clamp."""
    dt = point.dtype.type
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    rz = dt(1) / point[2]
    margin_x = dt(0.15) * dt(width) / fx
    margin_y = dt(0.15) * dt(height) / fy
    slope_x, slope_y = point[0] * rz, point[1] * rz
    clamped_x = min((dt(width) - cx) / fx + margin_x, max(-cx / fx - margin_x, slope_x))
    clamped_y = min((dt(height) - cy) / fy + margin_y, max(-cy / fy - margin_y, slope_y))
    J[0, 0] = fx * rz
    J[0, 1] = dt(0)
    J[0, 2] = -fx * clamped_x * rz
    J[1, 0] = dt(0)
    J[1, 1] = fy * rz
    J[1, 2] = -fy * clamped_y * rz
    return clamped_x == slope_x, clamped_y == slope_y


@kernel()
def _shape_in_camera(viewmat, rotation, scale, U):
    """U = W Q diag(S)."""
    for i in range(3):
        for j in range(3):
            total = (
                viewmat[i, 0] * rotation[0, j]
                + viewmat[i, 1] * rotation[1, j]
                + viewmat[i, 2] * rotation[2, j]
            )
            U[i, j] = total * scale[j]


@kernel(parallel=True)
def project_forward(
    means, quats, scales, viewmats, Ks, width, height, eps2d, near, far, radius_clip,
    radii, means2d, depths, conics, compensations,
):  # fmt: skip
    """Fill radii (C, N) int32, means2d (C, N, 2), depths (C, N), conics (C, N, 3), compensations (C, N).

    Rows of Gaussians that cannot be seen keep radius 0; the other outputs are set to zero there.
    """
    count = means.shape[0]
    cameras = viewmats.shape[0]
    dt = means.dtype.type
    blocks = (count + 255) // 256
    for block in prange(cameras * blocks):
        c = block // blocks
        first = (block - c * blocks) * 256
        rotation = np.empty((3, 3), means.dtype)
        U = np.empty((3, 3), means.dtype)
        J = np.empty((2, 3), means.dtype)
        point = np.empty(3, means.dtype)
        W = viewmats[c]
        K = Ks[c]
        for n in range(first, min(count, first + 256)):
            radii[c, n] = 0
            means2d[c, n, 0] = means2d[c, n, 1] = depths[c, n] = compensations[c, n] = dt(0)
            conics[c, n, 0] = conics[c, n, 1] = conics[c, n, 2] = dt(0)
            for i in range(3):
                point[i] = W[i, 0] * means[n, 0] + W[i, 1] * means[n, 1] + W[i, 2] * means[n, 2] + W[i, 3]
            z = point[2]
            if not (z >= near and z <= far):
                continue
            _rotation(quats[n], rotation)
            _shape_in_camera(W, rotation, scales[n], U)
            _jacobian(point, K, width, height, J)
            a = b = d = dt(0)
            for j in range(3):
                p0 = J[0, 0] * U[0, j] + J[0, 2] * U[2, j]
                p1 = J[1, 1] * U[1, j] + J[1, 2] * U[2, j]
                a += p0 * p0
                b += p0 * p1
                d += p1 * p1
            sharp = a * d - b * b
            a += eps2d
            d += eps2d
            det = a * d - b * b
            if not det > dt(0):
                continue
            mid = dt(0.5) * (a + d)
            largest = mid + math.sqrt(max(dt(0.01), mid * mid - det))
            radius = math.ceil(dt(3) * math.sqrt(largest))
            u = K[0, 0] * point[0] / z + K[0, 2]
            v = K[1, 1] * point[1] / z + K[1, 2]
            if not radius > radius_clip or not (
                u + radius > 0 and u - radius < width and v + radius > 0 and v - radius < height
            ):
                continue
            radii[c, n] = np.int32(min(radius, dt(1e9)))
            means2d[c, n, 0] = u
            means2d[c, n, 1] = v
            depths[c, n] = z
            inverse = dt(1) / det
            conics[c, n, 0] = d * inverse
            conics[c, n, 1] = -b * inverse
            conics[c, n, 2] = a * inverse
            compensations[c, n] = math.sqrt(max(dt(0), sharp * inverse))


@kernel()
def _quaternion_gradient(q, inverse_norm, g, out):
    """Add the gradient of the unnormalised quaternion, given that of the rotation matrix, to `out`."""
    dt = q.dtype.type
    two = dt(2)
    w, x, y, z = q[0] * inverse_norm, q[1] * inverse_norm, q[2] * inverse_norm, q[3] * inverse_norm
    gw = two * (x * (g[2, 1] - g[1, 2]) + y * (g[0, 2] - g[2, 0]) + z * (g[1, 0] - g[0, 1]))
    gx = two * (-two * x * (g[1, 1] + g[2, 2]) + y * (g[1, 0] + g[0, 1]) + z * (g[2, 0] + g[0, 2]))
    gx += two * w * (g[2, 1] - g[1, 2])
    gy = two * (x * (g[1, 0] + g[0, 1]) - two * y * (g[0, 0] + g[2, 2]) + z * (g[2, 1] + g[1, 2]))
    gy += two * w * (g[0, 2] - g[2, 0])
    gz = two * (x * (g[2, 0] + g[0, 2]) + y * (g[2, 1] + g[1, 2]) - two * z * (g[0, 0] + g[1, 1]))
    gz += two * w * (g[1, 0] - g[0, 1])
    along = gw * w + gx * x + gy * y + gz * z
    out[0] += (gw - along * w) * inverse_norm
    out[1] += (gx - along * x) * inverse_norm
    out[2] += (gy - along * y) * inverse_norm
    out[3] += (gz - along * z) * inverse_norm


@kernel(parallel=True)
def project_backward(
    means, quats, scales, viewmats, Ks, width, height, eps2d, radii, conics, compensations,
    v_means2d, v_depths, v_conics, v_compensations, v_means, v_quats, v_scales, v_viewmats,
):  # fmt: skip
    """Fill the gradients of means, quats and scales, and that of the cameras in parts: v_viewmats (_CHUNKS,
    C, 4, 4).

    `v_conics` holds derivatives by A, B and C of sigma = (A dx^2 + C dy^2) / 2 + B dx dy.
    """
    count = means.shape[0]
    cameras = viewmats.shape[0]
    dt = means.dtype.type
    two = dt(2)
    chunks = v_viewmats.shape[0]
    for chunk in prange(chunks):
        rotation = np.empty((3, 3), means.dtype)
        U = np.empty((3, 3), means.dtype)
        J = np.empty((2, 3), means.dtype)
        point = np.empty(3, means.dtype)
        v_point = np.empty(3, means.dtype)
        v_P = np.empty((2, 3), means.dtype)
        v_U = np.empty((3, 3), means.dtype)
        v_J = np.empty((2, 3), means.dtype)
        v_rotation = np.empty((3, 3), means.dtype)
        v_viewmats[chunk] = dt(0)
        for n in range(count * chunk // chunks, count * (chunk + 1) // chunks):
            v_means[n] = dt(0)
            v_quats[n] = dt(0)
            v_scales[n] = dt(0)
            v_rotation[:] = dt(0)
            inverse_norm = dt(0)
            for c in range(cameras):
                if radii[c, n] <= 0:
                    continue
                W = viewmats[c]
                for i in range(3):
                    point[i] = W[i, 0] * means[n, 0] + W[i, 1] * means[n, 1] + W[i, 2] * means[n, 2] + W[i, 3]
                inverse_norm = _rotation(quats[n], rotation)
                _shape_in_camera(W, rotation, scales[n], U)
                free_x, free_y = _jacobian(point, Ks[c], width, height, J)
                # conic = cov^-1, so the gradient of cov is -conic G conic, G symmetric with v_B split in two.
                A, B, C = conics[c, n, 0], conics[c, n, 1], conics[c, n, 2]
                gA, gB, gC = v_conics[c, n, 0], dt(0.5) * v_conics[c, n, 1], v_conics[c, n, 2]
                t00 = A * gA + B * gB
                t01 = A * gB + B * gC
                t10 = B * gA + C * gB
                t11 = B * gB + C * gC
                g00 = -(t00 * A + t01 * B)
                g01 = -(t00 * B + t01 * C)
                g11 = -(t10 * B + t11 * C)
                rho = compensations[c, n]
                if rho > dt(0):
                    # rho^2 = det(cov - eps I) / det(cov): derivative (1 - rho^2) conic - eps det(conic) I.
                    half = dt(0.5) * v_compensations[c, n] / max(rho, dt(1e-6))
                    rest = dt(1) - rho * rho
                    blur = eps2d * (A * C - B * B)
                    g00 += half * (rest * A - blur)
                    g01 += half * rest * B
                    g11 += half * (rest * C - blur)
                for j in range(3):
                    p0 = J[0, 0] * U[0, j] + J[0, 2] * U[2, j]
                    p1 = J[1, 1] * U[1, j] + J[1, 2] * U[2, j]
                    v_P[0, j] = two * (g00 * p0 + g01 * p1)
                    v_P[1, j] = two * (g01 * p0 + g11 * p1)
                for i in range(3):
                    for j in range(3):
                        v_U[i, j] = J[0, i] * v_P[0, j] + J[1, i] * v_P[1, j]
                    for r in range(2):
                        v_J[r, i] = v_P[r, 0] * U[i, 0] + v_P[r, 1] * U[i, 1] + v_P[r, 2] * U[i, 2]
                # The point: through the image position, the depth and the linearisation J.
                z = point[2]
                rz = dt(1) / z
                fx, fy = Ks[c, 0, 0], Ks[c, 1, 1]
                vu, vv = v_means2d[c, n, 0], v_means2d[c, n, 1]
                v_point[0] = fx * rz * vu
                v_point[1] = fy * rz * vv
                v_point[2] = v_depths[c, n] - rz * rz * (fx * point[0] * vu + fy * point[1] * vv)
                v_point[2] -= rz * (J[0, 0] * v_J[0, 0] + J[1, 1] * v_J[1, 1])
                v_point[2] -= rz * (J[0, 2] * v_J[0, 2] + J[1, 2] * v_J[1, 2])
                if free_x:
                    v_point[0] -= fx * rz * rz * v_J[0, 2]
                    v_point[2] -= rz * J[0, 2] * v_J[0, 2]
                if free_y:
                    v_point[1] -= fy * rz * rz * v_J[1, 2]
                    v_point[2] -= rz * J[1, 2] * v_J[1, 2]
                for j in range(3):
                    v_means[n, j] += W[0, j] * v_point[0] + W[1, j] * v_point[1] + W[2, j] * v_point[2]
                    for i in range(3):
                        v_M = W[0, i] * v_U[0, j] + W[1, i] * v_U[1, j] + W[2, i] * v_U[2, j]
                        v_scales[n, j] += rotation[i, j] * v_M
                        v_rotation[i, j] += v_M * scales[n, j]
                for i in range(3):
                    v_viewmats[chunk, c, i, 3] += v_point[i]
                    for k in range(3):
                        total = v_point[i] * means[n, k]
                        for j in range(3):
                            total += v_U[i, j] * rotation[k, j] * scales[n, j]
                        v_viewmats[chunk, c, i, k] += total
            if inverse_norm > dt(0):
                _quaternion_gradient(quats[n], inverse_norm, v_rotation, v_quats[n])
