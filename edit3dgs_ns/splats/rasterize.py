"""`rasterize`: one signature for drawing Gaussians, gsplat's. gsplat draws on CUDA, `cpu_rasterizer` on the CPU.

Conventions: metres; quaternions wxyz; scales linear and opacities in [0, 1] (already through exp and sigmoid);
`viewmats` are camera_from_world with OpenCV axes (x right, y down, looking along +z); the centre of the first pixel is
at (0.5, 0.5).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
RasterizeMode = Literal["classic", "antialiased"]


def rasterize(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, "N"],
    colors: Float[Tensor, "*shape"],
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
        render_mode: "RGB" the channels; "D" depth summed with the weights; "ED" the same divided by alpha; "RGB+D"
            and "RGB+ED" both, depth last.
        rasterize_mode: "antialiased" makes up for `eps2d` in the opacity (Mip-Splatting, Yu et al. 2024).
        absgrad: Let the backward pass leave sums of absolute gradients in `info["means2d"].absgrad` (AbsGS).
        extra: More channels, drawn over zero with the same weights into `info["extra"]` (C, H, W, E).

    Returns:
        The image, X channels as `render_mode` says; alpha; and gsplat's `info` with means2d (C, N, 2), radii (C, N)
        int32, depths, conics, opacities, width, height, n_cameras, and None for gaussian_ids and camera_ids, as
        `gsplat.strategy.DefaultStrategy` reads it (not packed).

    Raises:
        ValueError: Shapes, types, devices or modes that do not fit; the message names the argument.
    """
    _check(means, quats, scales, opacities, colors, viewmats, Ks, width, height, sh_degree, backgrounds, extra)
    for name, value, choices in (
        ("render_mode", render_mode, get_args(RenderMode)), ("rasterize_mode", rasterize_mode, get_args(RasterizeMode))
    ):  # fmt: skip
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}")
    draw = _draw_with_gsplat if means.device.type == "cuda" else _draw_on_cpu
    image, alphas, info = draw(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane, radius_clip, eps2d,
        sh_degree, backgrounds, render_mode, rasterize_mode == "antialiased", absgrad, extra,
    )  # fmt: skip
    return image, alphas, info


def _check(means, quats, scales, opacities, colors, viewmats, Ks, width, height, sh_degree, backgrounds, extra) -> None:
    count, cameras = len(means), len(viewmats)
    tensors = {"means": (means, (count, 3)), "quats": (quats, (count, 4)), "scales": (scales, (count, 3)),
               "opacities": (opacities, (count,)), "viewmats": (viewmats, (cameras, 4, 4)), "Ks": (Ks, (cameras, 3, 3)),
               "colors": (colors, None)}  # fmt: skip
    if extra is not None:
        tensors["extra"] = (extra, (count, extra.shape[-1]))
    if backgrounds is not None:
        tensors["backgrounds"] = (backgrounds, (cameras, backgrounds.shape[-1]))
    for name, (tensor, shape) in tensors.items():
        if shape is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected {shape}")
        if tensor.device != means.device:
            raise ValueError(f"{name} is on {tensor.device}, means is on {means.device}; expected one device")
        if tensor.dtype != means.dtype or tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} is {tensor.dtype}, means is {means.dtype}; expected float32 (or float64) everywhere")
    if means.device.type not in ("cpu", "cuda"):
        raise ValueError(f"means is on {means.device}; expected a CPU or CUDA device")
    if width < 1 or height < 1:
        raise ValueError(f"image size is {width} x {height}; expected at least 1 x 1")
    if sh_degree is None:
        if colors.dim() not in (2, 3) or tuple(colors.shape[:-1]) not in ((count,), (cameras, count)):
            raise ValueError(f"colors has shape {tuple(colors.shape)}; expected ({count}, D) or ({cameras}, {count}, D)")
        channels = colors.shape[-1]
    else:
        if not 0 <= sh_degree <= 3:
            raise ValueError(f"sh_degree is {sh_degree}; expected 0 to 3, or None for plain colours")
        needed = (sh_degree + 1) ** 2
        if colors.dim() != 3 or len(colors) != count or colors.shape[2] != 3 or colors.shape[1] < needed:
            raise ValueError(
                f"colors has shape {tuple(colors.shape)}; expected ({count}, K, 3) with K >= {needed} for SH degree {sh_degree}"
            )
        channels = 3
    if backgrounds is not None and backgrounds.shape[-1] != channels:
        raise ValueError(f"backgrounds has {backgrounds.shape[-1]} channels; expected {channels}, as many as colors")


def _channels(colors, depths, extra, backgrounds, render_mode):
    """Lay out what is blended: colours, depth, extra; with the background behind each."""
    cameras, count = depths.shape
    parts, behind = [], []
    if render_mode.startswith("RGB"):
        parts.append(colors.expand(cameras, count, -1))
        behind.append(colors.new_zeros(cameras, colors.shape[-1]) if backgrounds is None else backgrounds)
    if render_mode.endswith("D"):
        parts.append(depths[..., None])
        behind.append(depths.new_zeros(cameras, 1))
    if extra is not None:
        parts.append(extra.expand(cameras, count, -1))
        behind.append(extra.new_zeros(cameras, extra.shape[-1]))
    if len(parts) == 1:
        return parts[0], behind[0]
    return torch.cat(parts, -1), torch.cat(behind, -1)


def _split(image, alphas, render_mode, extra, info):
    """Take blended channels apart again: the image, depth normalised where asked for; `extra` goes into `info`."""
    if extra is not None:
        image, info["extra"] = image.split([image.shape[-1] - extra.shape[-1], extra.shape[-1]], -1)
    if render_mode.endswith("ED"):
        depth = image[..., -1:] / alphas.clamp(min=1e-10)
        image = depth if render_mode == "ED" else torch.cat([image[..., :-1], depth], -1)
    return image


def _camera_centers(viewmats: Float[Tensor, "C 4 4"]) -> Float[Tensor, "C 3"]:
    return torch.inverse(viewmats)[:, :3, 3]


def _draw_on_cpu(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane, radius_clip, eps2d,
    sh_degree, backgrounds, render_mode, antialiased, absgrad, extra,
):  # fmt: skip
    from edit3dgs_ns.splats import cpu_rasterizer as cpu

    means2d, depths, conics, compensations, radii = cpu.project(
        means, quats, scales, viewmats, Ks, width, height,
        eps2d=eps2d, near_plane=near_plane, far_plane=far_plane, radius_clip=radius_clip,
    )  # fmt: skip
    opacities = opacities.expand(len(viewmats), -1)
    if antialiased:
        opacities = opacities * compensations
    if sh_degree is not None and render_mode.startswith("RGB"):
        colors = cpu.spherical_harmonics(colors, means, _camera_centers(viewmats), radii, sh_degree)
    channels, behind = _channels(colors, depths, extra, backgrounds, render_mode)
    image, alphas = cpu.blend(
        means2d, conics, opacities, channels, behind, radii, depths, width, height, absgrad=absgrad
    )
    info = {
        "means2d": means2d, "radii": radii, "depths": depths, "conics": conics, "opacities": opacities,
        "camera_ids": None, "gaussian_ids": None, "width": width, "height": height, "n_cameras": len(viewmats),
    }  # fmt: skip
    return _split(image, alphas, render_mode, extra, info), alphas, info


def _draw_with_gsplat(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane, radius_clip, eps2d,
    sh_degree, backgrounds, render_mode, antialiased, absgrad, extra,
):  # fmt: skip
    import gsplat

    common = {
        "near_plane": near_plane, "far_plane": far_plane, "radius_clip": radius_clip, "eps2d": eps2d, "packed": False,
        "absgrad": absgrad, "rasterize_mode": "antialiased" if antialiased else "classic",
    }  # fmt: skip
    if extra is not None and sh_degree is not None and render_mode.startswith("RGB"):
        from gsplat import spherical_harmonics

        # One pass for SH colours and extra channels needs the colours first; gsplat masks what cannot be seen itself.
        directions = means[None] - _camera_centers(viewmats)[:, None]
        coefficients = colors.expand(len(viewmats), -1, -1, -1)
        colors = torch.clamp_min(spherical_harmonics(sh_degree, directions, coefficients) + 0.5, 0.0)
        sh_degree = None
    shown = colors
    if extra is not None:
        cameras, count = len(viewmats), len(means)
        more = extra.expand(cameras, count, -1)
        if render_mode.startswith("RGB"):
            shown = torch.cat([colors.expand(cameras, count, -1), more], -1)
            if backgrounds is not None:
                backgrounds = torch.cat([backgrounds, backgrounds.new_zeros(cameras, extra.shape[-1])], -1)
        else:
            shown, sh_degree, backgrounds = more, None, None
    mode = render_mode if extra is None or render_mode.startswith("RGB") else f"RGB+{render_mode}"
    if mode in ("D", "ED"):
        backgrounds = None
    image, alphas, info = gsplat.rasterization(
        means, quats, scales, opacities, shown, viewmats, Ks, width, height,
        sh_degree=sh_degree, backgrounds=backgrounds, render_mode=mode, **common,
    )  # fmt: skip
    if extra is not None:
        depth = 1 if mode.endswith("D") else 0
        sizes = [image.shape[-1] - extra.shape[-1] - depth, extra.shape[-1], depth]
        colour, info["extra"], last = image.split(sizes, -1)
        image = torch.cat([colour, last], -1)
    if info["radii"].dim() == 3:  # gsplat 1.5: one radius per axis
        info["radii"] = info["radii"].amax(-1)
    info.setdefault("n_cameras", len(viewmats))
    return image, alphas, info
