"""What gsplat 1.4 promises, drawn by the CPU rasterizer: for the pretended device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from edit3dgs_ns.splats.rasterize import rasterize
from tests.device.pretend_cuda import value_of


class StandInGsplat:
    """Put its methods in the place of gsplat's functions of the same names."""

    def __init__(self) -> None:
        self.calls = 0

    def rasterization(
        self,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        width: int,
        height: int,
        near_plane: float = 0.01,
        far_plane: float = 1e10,
        radius_clip: float = 0.0,
        eps2d: float = 0.3,
        sh_degree: int | None = None,
        packed: bool = True,
        backgrounds: Tensor | None = None,
        render_mode: str = "RGB",
        absgrad: bool = False,
        rasterize_mode: str = "classic",
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """`gsplat.rasterization`, as far as it is used here."""
        assert not packed, "the stand-in knows the dense layout only"
        assert means.device.type == "cuda"
        self.calls += 1
        options = {
            "near_plane": near_plane, "far_plane": far_plane, "radius_clip": radius_clip, "eps2d": eps2d,
            "sh_degree": sh_degree, "render_mode": render_mode, "absgrad": absgrad,
            "rasterize_mode": rasterize_mode, "width": width, "height": height,
            "backgrounds": None if backgrounds is None else value_of(backgrounds),
        }  # fmt: skip
        info: dict[str, Any] = {"camera_ids": None, "gaussian_ids": None, "width": width, "height": height}
        info["n_cameras"] = len(viewmats)
        image, alphas = _Draw.apply(means, quats, scales, opacities, colors, viewmats, Ks, options, info)
        return image, alphas, info

    def spherical_harmonics(
        self, degrees_to_use: int, dirs: Tensor, coeffs: Tensor, masks: Tensor | None = None
    ) -> Tensor:
        """`gsplat.spherical_harmonics`: directions of any length, no activation."""
        from tests.splats.reference import sh_basis

        assert dirs.shape[:-1] == coeffs.shape[:-2] and masks is None
        assert (degrees_to_use + 1) ** 2 <= coeffs.shape[-2]
        basis = sh_basis(torch.nn.functional.normalize(dirs, dim=-1))[..., : (degrees_to_use + 1) ** 2]
        return (basis[..., None] * coeffs[..., : basis.shape[-1], :]).sum(dim=-2)


class _Draw(torch.autograd.Function):
    """Values leave the pretended device, are drawn on the CPU, and come back; gradients likewise."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        *tensors, options, info = arguments
        device = tensors[0].device
        with unset_fake_temporarily(), torch.enable_grad():
            leaves = [value_of(t).clone().requires_grad_(t.requires_grad) for t in tensors]
            image, alphas, drawn = rasterize(*leaves, **options)
        if drawn["means2d"].requires_grad:
            drawn["means2d"].retain_grad()
        for name in ("means2d", "radii", "depths", "conics", "opacities"):
            info[name] = drawn[name].detach().to(device)
        info["means2d"].requires_grad_()
        ctx.leaves, ctx.outputs, ctx.device = leaves, (image, alphas), device
        ctx.drawn, ctx.info = drawn, info
        return image.detach().to(device), alphas.detach().to(device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        with unset_fake_temporarily(), torch.enable_grad():
            torch.autograd.backward(ctx.outputs, [value_of(gradient) for gradient in gradients])
        for name in ("grad", "absgrad"):
            if getattr(ctx.drawn["means2d"], name, None) is not None:
                setattr(ctx.info["means2d"], name, getattr(ctx.drawn["means2d"], name).to(ctx.device))
        moved = [None if leaf.grad is None else leaf.grad.to(ctx.device) for leaf in ctx.leaves]
        return *moved, None, None
