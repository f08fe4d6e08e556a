"""`rasterize`: gsplat's signature for rendering Gaussians; gsplat 1.4 renders on CUDA, `cpu_rasterizer` on the CPU.

Conventions: metres; quaternions wxyz; scales linear and opacities in [0, 1] (already through exp and
sigmoid); `viewmats` are camera_from_world with OpenCV axes (x right, y down, looking along +z); the centre of
the first pixel is at (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.splats.gsplat_version import check_gsplat

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
RasterizeMode = Literal["classic", "antialiased"]


def rasterize(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    colors: Float[Tensor, "N D"] | Float[Tensor, "N K 3"] | Float[Tensor, "C N D"],
    viewmats: Float[Tensor, "C 4 4"],
    Ks: Float[Tensor, "C 3 3"],
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    backgrounds: Float[Tensor, "C D"] | None = None,
    render_mode: RenderMode = "RGB",
    rasterize_mode: RasterizeMode = "classic",
    absgrad: bool = False,
    extra: Float[Tensor, "N E"] | None = None,
) -> tuple[Float[Tensor, "C H W X"], Float[Tensor, "C H W 1"], dict[str, Any]]:
    """Draw Gaussians into several cameras of one size, differentiably in everything but `Ks`.

    Args:
        means: Centres in world space.
        quats: Rotations, wxyz, of any length but 0.
        scales: Standard deviations along the own axes.
        opacities: In [0, 1].
        colors: (N, D) or (C, N, D) channels of any number; with `sh_degree`, (N, K, 3) SH coefficients.
        viewmats: camera_from_world, OpenCV axes.
        Ks: Intrinsics in pixels; skew is ignored.
        width: Image width in pixels.
        height: Image height in pixels.
        near_plane: Nearest depth drawn.
        far_plane: Farthest depth drawn.
        radius_clip: Gaussians of at most this radius (pixels) are left out.
        eps2d: Blur added to the projected covariance, pixels^2.
        sh_degree: Degree of the SH that is used, 0 to 3; None: `colors` are taken as they are.
        backgrounds: Colour behind everything, per camera; None: black.
        render_mode: "RGB" the channels; "D" depth summed with the weights; "ED" the same divided by alpha;
            "RGB+D" and "RGB+ED" both, depth last.
        rasterize_mode: "antialiased" makes up for `eps2d` in the opacity (Mip-Splatting, Yu et al. 2024).
        absgrad: Let the backward pass leave sums of absolute gradients in `info["means2d"].absgrad` (AbsGS).
        extra: More channels, drawn over zero with the same weights into `info["extra"]` (C, H, W, E).

    Returns:
        The image, X channels as `render_mode` says; alpha; and gsplat's `info` with means2d (C, N, 2), radii
        (C, N) int32, depths, conics, opacities, width, height, n_cameras, and None for gaussian_ids and
        camera_ids, as `gsplat.strategy.DefaultStrategy` reads it (not packed).

    Raises:
        ValueError: Shapes, types, devices or modes that do not fit; the message names the argument.
    """
    request = _Request(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane,
        radius_clip, eps2d, sh_degree, backgrounds, render_mode, rasterize_mode, absgrad, extra,
    )  # fmt: skip
    _check_tensors(request)
    _check_choices(request)
    return _draw_with_gsplat(request) if means.device.type == "cuda" else _draw_on_cpu(request)


@dataclass(frozen=True)
class _Request:
    """The arguments of `rasterize`."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int
    near_plane: float
    far_plane: float
    radius_clip: float
    eps2d: float
    sh_degree: int | None
    backgrounds: Tensor | None
    render_mode: str
    rasterize_mode: str
    absgrad: bool
    extra: Tensor | None

    @property
    def wants_colors(self) -> bool:
        return self.render_mode.startswith("RGB")

    @property
    def camera_centers(self) -> Float[Tensor, "C 3"]:
        return torch.inverse(self.viewmats)[:, :3, 3]


def _check_tensors(r: _Request) -> None:
    """One device, one float type, the right shapes."""
    if r.means.device.type not in ("cpu", "cuda"):
        raise UserError(f"means is on {r.means.device}; expected a CPU or CUDA device")
    count, cameras = len(r.means), len(r.viewmats)
    shapes = {
        "means": (count, 3), "quats": (count, 4), "scales": (count, 3), "opacities": (count,), "colors": None,
        "viewmats": (cameras, 4, 4), "Ks": (cameras, 3, 3),
    }  # fmt: skip
    if r.extra is not None:
        shapes["extra"] = (count, r.extra.shape[-1])
    if r.backgrounds is not None:
        shapes["backgrounds"] = (cameras, r.backgrounds.shape[-1])
    for name, shape in shapes.items():
        tensor = getattr(r, name)
        if shape is not None and tuple(tensor.shape) != shape:
            raise UserError(f"{name} has shape {tuple(tensor.shape)}; expected {shape}")
        if tensor.device != r.means.device:
            raise UserError(
                f"{name} is on {tensor.device}, means is on {r.means.device}; expected one device"
            )
        if tensor.dtype != r.means.dtype or tensor.dtype not in (torch.float32, torch.float64):
            raise UserError(
                f"{name} is {tensor.dtype}, means is {r.means.dtype}; expected float32 or float64 everywhere"
            )
    _check_colors(r.colors, count, cameras, r.sh_degree)
    channels = r.colors.shape[-1]
    if r.backgrounds is not None and r.backgrounds.shape[-1] != channels:
        raise UserError(
            f"backgrounds has {r.backgrounds.shape[-1]} channels; expected {channels}, as many as colors"
        )


def _check_colors(colors: Tensor, count: int, cameras: int, sh_degree: int | None) -> None:
    shape = tuple(colors.shape)
    if sh_degree is None:
        if shape[:-1] not in ((count,), (cameras, count)):
            raise UserError(f"colors has shape {shape}; expected ({count}, D) or ({cameras}, {count}, D)")
        return
    if not 0 <= sh_degree <= 3:
        raise UserError(f"sh_degree is {sh_degree}; expected 0 to 3, or None for plain colours")
    needed = (sh_degree + 1) ** 2
    if len(shape) != 3 or shape[0] != count or shape[2] != 3 or shape[1] < needed:
        raise UserError(
            f"colors has shape {shape}; expected ({count}, K, 3) with K >= {needed} for SH degree {sh_degree}"
        )


def _check_choices(r: _Request) -> None:
    if r.width < 1 or r.height < 1:
        raise UserError(f"image size is {r.width} x {r.height}; expected at least 1 x 1")
    for name, choices in (("render_mode", get_args(RenderMode)), ("rasterize_mode", get_args(RasterizeMode))):
        value = getattr(r, name)
        if value not in choices:
            raise UserError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def _draw_on_cpu(r: _Request) -> tuple[Tensor, Tensor, dict[str, Any]]:
    from edit3dgs_ns.splats import cpu_rasterizer as cpu

    means2d, depths, conics, compensations, radii = cpu.project(
        r.means, r.quats, r.scales, r.viewmats, r.Ks, r.width, r.height,
        eps2d=r.eps2d, near_plane=r.near_plane, far_plane=r.far_plane, radius_clip=r.radius_clip,
    )  # fmt: skip
    opacities = r.opacities.expand(len(r.viewmats), -1)
    if r.rasterize_mode == "antialiased":
        opacities = opacities * compensations
    colors = r.colors
    if r.sh_degree is not None and r.wants_colors:
        colors = cpu.spherical_harmonics(colors, r.means, r.camera_centers, radii, r.sh_degree)
    channels, behind = _join_channels(r, colors, depths)
    image, alphas = cpu.blend(
        means2d, conics, opacities, channels, behind, radii, depths, r.width, r.height, absgrad=r.absgrad
    )
    info = {
        "means2d": means2d, "radii": radii, "depths": depths, "conics": conics, "opacities": opacities,
        "camera_ids": None, "gaussian_ids": None, "width": r.width, "height": r.height,
        "n_cameras": len(r.viewmats),
    }  # fmt: skip
    return _split_channels(r, image, alphas, info), alphas, info


def _join_channels(r: _Request, colors: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    """Blended channels, (C, N, X): colours, depth, extra; and their backgrounds, (C, X)."""
    cameras, count = depths.shape
    parts, behind = [], []
    if r.wants_colors:
        parts.append(colors.expand(cameras, count, -1))
        behind.append(colors.new_zeros(cameras, colors.shape[-1]) if r.backgrounds is None else r.backgrounds)
    if r.render_mode.endswith("D"):
        parts.append(depths[..., None])
        behind.append(depths.new_zeros(cameras, 1))
    if r.extra is not None:
        parts.append(r.extra.expand(cameras, count, -1))
        behind.append(r.extra.new_zeros(cameras, r.extra.shape[-1]))
    if len(parts) == 1:
        return parts[0], behind[0]
    return torch.cat(parts, -1), torch.cat(behind, -1)


def _split_channels(r: _Request, image: Tensor, alphas: Tensor, info: dict[str, Any]) -> Tensor:
    """Undo `_join_channels`: the image, its depth normalised where asked for; `extra` goes into `info`."""
    if r.extra is not None:
        image, info["extra"] = image.split([image.shape[-1] - r.extra.shape[-1], r.extra.shape[-1]], -1)
    if r.render_mode.endswith("ED"):
        depth = image[..., -1:] / alphas.clamp(min=1e-10)
        image = depth if r.render_mode == "ED" else torch.cat([image[..., :-1], depth], -1)
    return image


def _draw_with_gsplat(r: _Request) -> tuple[Tensor, Tensor, dict[str, Any]]:
    import gsplat

    check_gsplat()
    colors, sh_degree, backgrounds, mode = r.colors, r.sh_degree, r.backgrounds, r.render_mode
    if r.extra is not None:
        colors, sh_degree, backgrounds, mode = _with_extra_for_gsplat(r)
    if mode in ("D", "ED"):
        backgrounds = None
    image, alphas, info = gsplat.rasterization(
        r.means, r.quats, r.scales, r.opacities, colors, r.viewmats, r.Ks, r.width, r.height,
        near_plane=r.near_plane, far_plane=r.far_plane, radius_clip=r.radius_clip, eps2d=r.eps2d,
        sh_degree=sh_degree, backgrounds=backgrounds, render_mode=mode, rasterize_mode=r.rasterize_mode,
        absgrad=r.absgrad, packed=False,
    )  # fmt: skip
    if r.extra is not None:
        depth = 1 if mode.endswith("D") else 0
        sizes = [image.shape[-1] - r.extra.shape[-1] - depth, r.extra.shape[-1], depth]
        shown, info["extra"], depths = image.split(sizes, -1)
        image = torch.cat([shown, depths], -1)
    return image, alphas, info


def _with_extra_for_gsplat(r: _Request) -> tuple[Tensor, None, Tensor | None, str]:
    """One pass of gsplat for colours and extra channels: both as plain channels, the depth still last."""
    assert r.extra is not None
    cameras, count = len(r.viewmats), len(r.means)
    more = r.extra.expand(cameras, count, -1)
    if not r.wants_colors:
        return more, None, None, f"RGB+{r.render_mode}"
    colors = r.colors
    if r.sh_degree is not None:
        from gsplat import spherical_harmonics

        directions = r.means[None] - r.camera_centers[:, None]
        coefficients = colors.expand(cameras, -1, -1, -1)
        colors = torch.clamp_min(spherical_harmonics(r.sh_degree, directions, coefficients) + 0.5, 0.0)
    backgrounds = r.backgrounds
    if backgrounds is not None:
        backgrounds = torch.cat([backgrounds, backgrounds.new_zeros(cameras, more.shape[-1])], -1)
    return torch.cat([colors.expand(cameras, count, -1), more], -1), None, backgrounds, r.render_mode
