"""A slow, obvious rasterizer: dense per pixel, PyTorch operations only, gradients by autograd.

Shares no formula's code with the kernels: rotations by Rodrigues, spherical harmonics by Legendre functions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.splats.scenes import Scene


def rotation_matrices(quats: Tensor) -> Tensor:
    """By Rodrigues' formula from axis and angle: nothing shared with the kernels' closed form."""
    w, xyz = quats[:, 0], quats[:, 1:]
    length = xyz.norm(dim=-1)
    axis, angle = xyz / length[:, None], 2 * torch.atan2(length, w)
    zero = torch.zeros_like(w)
    x, y, z = axis.unbind(-1)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    sin, cos = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return torch.eye(3, dtype=quats.dtype) + sin * cross + (1 - cos) * cross @ cross


def sh_basis(directions: Tensor) -> Tensor:
    """Real spherical harmonics up to degree 3 from associated Legendre functions, with the signs that 3DGS
    uses."""
    x, y, z = directions.unbind(-1)
    plane = [(torch.ones_like(x), torch.zeros_like(x))]
    for _ in range(3):
        re, im = plane[-1]
        plane.append((re * x - im * y, re * y + im * x))  # (x + iy)^m = sin^m(theta) e^(i m phi)
    legendre = {
        (0, 0): torch.ones_like(z), (1, 0): z, (1, 1): -torch.ones_like(z),
        (2, 0): (3 * z**2 - 1) / 2, (2, 1): -3 * z, (2, 2): 3 * torch.ones_like(z),
        (3, 0): (5 * z**3 - 3 * z) / 2, (3, 1): -1.5 * (5 * z**2 - 1), (3, 2): 15 * z,
        (3, 3): -15 * torch.ones_like(z),
    }  # fmt: skip
    values = []
    for degree in range(4):
        for order in range(-degree, degree + 1):
            m = abs(order)
            ratio = math.factorial(degree - m) / math.factorial(degree + m)
            scale = math.sqrt((2 * degree + 1) / (4 * math.pi) * ratio * (2 if m else 1))
            values.append(scale * legendre[degree, m] * plane[m][1 if order < 0 else 0])
    return torch.stack(values, -1)


def dense_render(scene: Scene, **options: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """What `rasterize` promises, one (camera, Gaussian, pixel) array at a time. Same arguments."""
    outputs = [_dense_camera(scene, c, **options) for c in range(len(scene.viewmats))]
    images, alphas, infos = zip(*outputs, strict=True)
    info = {key: torch.stack([i[key] for i in infos]) for key in infos[0]}
    return torch.stack(images), torch.stack(alphas), info


def _dense_camera(
    scene: Scene, c: int, sh_degree=None, render_mode="RGB", rasterize_mode="classic", eps2d=0.3,
    near_plane=0.01, far_plane=1e10, radius_clip=0.0, backgrounds=None, extra=None,
):  # fmt: skip
    dtype, width, height = scene.means.dtype, scene.width, scene.height
    world, K = scene.viewmats[c], scene.Ks[c]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    points = scene.means @ world[:3, :3].T + world[:3, 3]
    x, y, z = points.unbind(-1)
    in_range = (z >= near_plane) & (z <= far_plane)
    z = torch.where(in_range, z, torch.ones_like(z))
    axes = world[:3, :3] @ rotation_matrices(scene.quats) * scene.scales[:, None, :]
    covariance3d = axes @ axes.transpose(-1, -2)
    slope_x = (x / z).clamp(-cx / fx - 0.15 * width / fx, (width - cx) / fx + 0.15 * width / fx)
    slope_y = (y / z).clamp(-cy / fy - 0.15 * height / fy, (height - cy) / fy + 0.15 * height / fy)
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * slope_x / z, zero, fy / z, -fy * slope_y / z], -1).reshape(-1, 2, 3)
    sharp = J @ covariance3d @ J.transpose(-1, -2)
    covariance = sharp + eps2d * torch.eye(2, dtype=dtype)
    conic = torch.linalg.inv(covariance)
    eigenvalues = torch.linalg.eigvalsh(
        covariance.detach()
    )  # gsplat takes half their distance for at least 0.1
    largest = eigenvalues.mean(-1) + ((eigenvalues[:, 1] - eigenvalues[:, 0]) / 2).clamp(min=0.1)
    radius = torch.ceil(3 * largest.sqrt())
    u, v = fx * x / z + cx, fy * y / z + cy
    on_screen = (u + radius > 0) & (u - radius < width) & (v + radius > 0) & (v - radius < height)
    radius = torch.where(in_range & on_screen & (radius > radius_clip), radius, torch.zeros_like(radius))

    opacities = scene.opacities
    if rasterize_mode == "antialiased":
        opacities = opacities * (torch.linalg.det(sharp) / torch.linalg.det(covariance)).clamp(min=0).sqrt()
    px = torch.arange(width, dtype=dtype) + 0.5
    py = torch.arange(height, dtype=dtype) + 0.5
    d = torch.stack(
        [
            (px - u[:, None])[:, None, :].expand(-1, height, -1),
            (py - v[:, None])[:, :, None].expand(-1, -1, width),
        ],
        -1,
    )
    sigma = 0.5 * torch.einsum("nhwi,nij,nhwj->nhw", d, conic, d)
    alpha = (opacities[:, None, None] * torch.exp(-sigma)).clamp(max=0.999)
    seen = (alpha >= 1 / 255) & (radius > 0)[:, None, None]

    def tiles(pixels: Tensor, middle: Tensor) -> Tensor:
        """Whether a pixel lies in a 16-pixel tile that the radius touches, by axis."""
        tile = torch.floor(pixels / 16)
        return (tile >= torch.floor((middle - radius)[:, None] / 16)) & (
            tile < torch.ceil((middle + radius)[:, None] / 16)
        )

    seen = seen & tiles(px, u)[:, None, :] & tiles(py, v)[:, :, None]

    order = torch.argsort(z.detach(), stable=True)
    alpha = torch.where(seen, alpha, torch.zeros_like(alpha))[order]
    after = torch.cumprod(1 - alpha, 0)
    alpha = torch.where(
        after > 1e-4, alpha, torch.zeros_like(alpha)
    )  # `after` only falls: a pixel that ended stays so
    before = torch.cumprod(torch.cat([torch.ones_like(alpha[:1]), 1 - alpha]), 0)
    weights, through = alpha * before[:-1], before[-1]

    colors = scene.colors
    if sh_degree is not None:
        center = torch.linalg.inv(world)[:3, 3]  # as gsplat: it matters for the gradient of viewmats
        basis = sh_basis(torch.nn.functional.normalize(scene.means - center, dim=-1))[
            :, : (sh_degree + 1) ** 2
        ]
        colors = (torch.einsum("nk,nkd->nd", basis, colors[:, : basis.shape[1]]) + 0.5).clamp(min=0)

    def draw(values: Tensor) -> Tensor:
        return torch.einsum("nhw,nd->hwd", weights, values[order])

    parts = []
    if render_mode.startswith("RGB"):
        parts.append(draw(colors) + (0 if backgrounds is None else through[..., None] * backgrounds[c]))
    alphas = (1 - through)[..., None]
    if render_mode.endswith("D"):
        depth = draw(z[:, None])
        parts.append(depth / alphas.clamp(min=1e-10) if render_mode.endswith("ED") else depth)
    info = {"radii": radius.int()} | ({} if extra is None else {"extra": draw(extra)})
    return torch.cat(parts, -1), alphas, info
