"""Small random scenes of Gaussians for the tests of the rasterizer."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from edit3dgs_ns.splats.rasterize import rasterize


@dataclass(frozen=True)
class Scene:
    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int

    def leaves(self) -> Scene:
        """The same scene, with every tensor but Ks a leaf that takes gradients."""
        names = [f.name for f in fields(self)][:6]
        return replace(
            self, **{name: getattr(self, name).detach().clone().requires_grad_() for name in names}
        )

    def render(self, **options: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
        return rasterize(*(getattr(self, f.name) for f in fields(self)), **options)

    @property
    def differentiable(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self)[:6]}


def look_at(eye: tuple[float, float, float], dtype: torch.dtype) -> Tensor:
    """camera_from_world of a camera at `eye` that looks at the origin, y down."""
    eye_ = torch.tensor(eye, dtype=torch.float64)
    forward = -eye_ / eye_.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    right = right / right.norm()
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ eye_
    return matrix.to(dtype)


def make_scene(
    count=40, width=37, height=29, cameras=1, dtype=torch.float64, seed=0, bases=None, size=0.06, channels=3
) -> Scene:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    eyes = [(0.2, 0.1, 1.4), (-0.9, 0.3, 1.0), (0.5, -0.4, -1.3)][:cameras]
    K = torch.tensor([[40.0, 0, width / 2 + 0.7], [0, 36.0, height / 2 - 1.3], [0, 0, 1]], dtype=dtype)
    return Scene(
        means=0.3 * normal(count, 3),
        quats=normal(count, 4),
        scales=size * torch.exp(0.5 * normal(count, 3)),
        opacities=torch.sigmoid(2 * normal(count)),
        colors=0.4 * normal(count, bases, 3) if bases else normal(count, channels).sigmoid(),
        viewmats=torch.stack([look_at(eye, dtype) for eye in eyes]),
        Ks=K.expand(cameras, 3, 3).clone(),
        width=width,
        height=height,
    )
