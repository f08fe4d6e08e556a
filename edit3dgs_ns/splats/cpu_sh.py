"""Colours from spherical harmonics (real, degree 0 to 3, the constants of Kerbl et al. 2023) and their
gradient."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from edit3dgs_ns.splats.jit import kernel


@kernel()
def _basis(degree, x, y, z, out):
    """Write the (degree + 1)^2 basis functions at the unit direction (x, y, z)."""
    dt = out.dtype.type
    out[0] = dt(0.28209479177387814)
    if degree >= 1:
        c1 = dt(0.4886025119029199)
        out[1], out[2], out[3] = -c1 * y, c1 * z, -c1 * x
    if degree >= 2:
        c2 = dt(1.0925484305920792)
        out[4] = c2 * x * y
        out[5] = -c2 * y * z
        out[6] = dt(0.9461746957575601) * z * z - dt(0.31539156525252005)
        out[7] = -c2 * x * z
        out[8] = dt(0.5462742152960396) * (x * x - y * y)
    if degree >= 3:
        c3, c4, c5 = dt(0.5900435899266435), dt(2.890611442640554), dt(0.4570457994644658)
        out[9] = -c3 * y * (dt(3) * x * x - y * y)
        out[10] = c4 * x * y * z
        out[11] = c5 * y * (dt(1) - dt(5) * z * z)
        out[12] = dt(0.3731763325901154) * z * (dt(5) * z * z - dt(3))
        out[13] = c5 * x * (dt(1) - dt(5) * z * z)
        out[14] = dt(0.5) * c4 * z * (x * x - y * y)
        out[15] = -c3 * x * (x * x - dt(3) * y * y)


@kernel()
def _direction_gradient(degree, x, y, z, g, out):
    """Write the gradient by (x, y, z), each free, of sum_k g[k] basis_k."""
    dt = g.dtype.type
    zero = dt(0)
    gx, gy, gz = zero, zero, zero
    if degree >= 1:
        c1 = dt(0.4886025119029199)
        gx, gy, gz = -c1 * g[3], -c1 * g[1], c1 * g[2]
    if degree >= 2:
        c2 = dt(1.0925484305920792)
        c6 = dt(2 * 0.5462742152960396)
        gx += c2 * (y * g[4] - z * g[7]) + c6 * x * g[8]
        gy += c2 * (x * g[4] - z * g[5]) - c6 * y * g[8]
        gz += dt(2 * 0.9461746957575601) * z * g[6] - c2 * (y * g[5] + x * g[7])
    if degree >= 3:
        c3, c4, c5 = dt(0.5900435899266435), dt(2.890611442640554), dt(0.4570457994644658)
        three, six, ring = dt(3), dt(6), dt(1) - dt(5) * z * z
        squares = x * x - y * y
        gx += -c3 * (six * x * y * g[9] + three * squares * g[15])
        gx += c4 * z * (y * g[10] + x * g[14]) + c5 * ring * g[13]
        gy += -c3 * (three * squares * g[9] - six * x * y * g[15])
        gy += c4 * z * (x * g[10] - y * g[14]) + c5 * ring * g[11]
        gz += c4 * (x * y * g[10] + dt(0.5) * squares * g[14]) - dt(10) * c5 * z * (y * g[11] + x * g[13])
        gz += dt(0.3731763325901154) * (dt(15) * z * z - three) * g[12]
    out[0], out[1], out[2] = gx, gy, gz


@kernel(parallel=True)
def colors_forward(degree, coefficients, means, centers, radii, colors):
    """Fill colors (C, N, 3) = max(0, sum_k basis_k(mean - center) coefficients[:, k] + 1/2); 0 where radius
    is 0."""
    count = means.shape[0]
    dt = means.dtype.type
    bases = (degree + 1) * (degree + 1)
    blocks = (count + 255) // 256
    for block in prange(radii.shape[0] * blocks):
        c = block // blocks
        first = (block - c * blocks) * 256
        basis = np.empty(16, means.dtype)
        for n in range(first, min(count, first + 256)):
            colors[c, n, 0] = colors[c, n, 1] = colors[c, n, 2] = dt(0)
            if radii[c, n] <= 0:
                continue
            dx, dy, dz = means[n, 0] - centers[c, 0], means[n, 1] - centers[c, 1], means[n, 2] - centers[c, 2]
            scale = dt(1) / math.sqrt(dx * dx + dy * dy + dz * dz)
            _basis(degree, dx * scale, dy * scale, dz * scale, basis)
            r = g = b = dt(0.5)
            for k in range(bases):
                r += basis[k] * coefficients[n, k, 0]
                g += basis[k] * coefficients[n, k, 1]
                b += basis[k] * coefficients[n, k, 2]
            colors[c, n, 0] = max(dt(0), r)
            colors[c, n, 1] = max(dt(0), g)
            colors[c, n, 2] = max(dt(0), b)


@kernel(parallel=True)
def colors_backward(
    degree, coefficients, means, centers, radii, colors, v_colors, v_coefficients, v_means, v_centers
):
    """Fill the gradients of coefficients (N, K, 3) and means, and that of the centres in parts: (chunks, C,
    3)."""
    count = means.shape[0]
    dt = means.dtype.type
    zero = dt(0)
    bases = (degree + 1) * (degree + 1)
    chunks = v_centers.shape[0]
    for chunk in prange(chunks):
        basis = np.empty(16, means.dtype)
        weights = np.empty(16, means.dtype)
        slope = np.empty(3, means.dtype)
        v_centers[chunk] = zero
        for n in range(count * chunk // chunks, count * (chunk + 1) // chunks):
            v_coefficients[n] = zero
            v_means[n] = zero
            for c in range(radii.shape[0]):
                if radii[c, n] <= 0:
                    continue
                # The clamp at 0 passes no gradient: `colors` is 0 exactly there.
                vr = v_colors[c, n, 0] if colors[c, n, 0] > zero else zero
                vg = v_colors[c, n, 1] if colors[c, n, 1] > zero else zero
                vb = v_colors[c, n, 2] if colors[c, n, 2] > zero else zero
                dx, dy, dz = (
                    means[n, 0] - centers[c, 0],
                    means[n, 1] - centers[c, 1],
                    means[n, 2] - centers[c, 2],
                )
                scale = dt(1) / math.sqrt(dx * dx + dy * dy + dz * dz)
                x, y, z = dx * scale, dy * scale, dz * scale
                _basis(degree, x, y, z, basis)
                for k in range(bases):
                    v_coefficients[n, k, 0] += basis[k] * vr
                    v_coefficients[n, k, 1] += basis[k] * vg
                    v_coefficients[n, k, 2] += basis[k] * vb
                    weights[k] = (
                        coefficients[n, k, 0] * vr + coefficients[n, k, 1] * vg + coefficients[n, k, 2] * vb
                    )
                _direction_gradient(degree, x, y, z, weights, slope)
                along = slope[0] * x + slope[1] * y + slope[2] * z
                gx, gy, gz = (
                    (slope[0] - along * x) * scale,
                    (slope[1] - along * y) * scale,
                    (slope[2] - along * z) * scale,
                )
                v_means[n, 0] += gx
                v_means[n, 1] += gy
                v_means[n, 2] += gz
                v_centers[chunk, c, 0] -= gx
                v_centers[chunk, c, 1] -= gy
                v_centers[chunk, c, 2] -= gz
