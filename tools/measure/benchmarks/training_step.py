"""A step of training an avatar on the CPU, beside the rasterizer's share of it: 40,000 Gaussians, one image of 256 x 256.

The step is what Nerfstudio's trainer does between two images: the head posed, Gaussians carried along and relit, rasterized, L1
and SSIM, the binding's losses, all gradients (of the motion too), Adam, densification's statistics. `ratio_to_rasterizer` is its
time over that of `rasterize`, forward and backward, of the same Gaussians and camera. Reading images is not in it (`streaming`).
"""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console

from tools.measure.benchmarks import avatar_frame, common
from tools.measure.benchmarks.avatar_frame import TIMESTEPS

GAUSSIANS, SIZE, CAMERAS = 40_000, 256, 4
FOCAL = 640.0
"""Pixels: the head fills about two thirds of the height."""


def measure(console: Console, threads: int, gaussians: int = GAUSSIANS, rounds: int = 30) -> dict[str, Any]:
    """The section `training_step`; the table shows single parts as well."""
    console.log(f"Training: steps of {gaussians:,} Gaussians")
    step = Step(gaussians)
    with common.threads(threads):
        parts = [step.whole, step.rasterizer, step.forward]
        for part in (*parts, *parts):
            part()
        whole, rasterizer, forward = common.alternate(parts, rounds)
    return {
        "ratio_to_rasterizer": round(whole / rasterizer, 3),
        "milliseconds": round(whole * 1e3, 2),
        "rasterizer_ms": round(rasterizer * 1e3, 2),
        "forward_ms": round(forward * 1e3, 2),
    }


class Step:
    """A model in training, its optimizers, and images of another avatar."""

    def __init__(self, gaussians: int):
        from nerfstudio.engine.optimizers import Optimizers

        from edit3dgs_ns.training.optimizers import avatar_optimizers

        self.model = avatar_frame.make_model(gaussians).train()
        self.model.train_by(self.model.config)  # densification looks at the Gaussians that are there now
        self.cameras = avatar_frame.cameras_around(self.model, CAMERAS, SIZE, SIZE, FOCAL)
        groups = self.model.get_param_groups()
        self.optimizers = Optimizers(
            {name: config for name, config in avatar_optimizers(3000).items() if name in groups}, groups
        )
        generator = torch.Generator().manual_seed(1)
        self.image = (255 * torch.rand(1, SIZE, SIZE, 3, generator=generator)).byte()
        self.number = 0
        self.weights = torch.rand(1, SIZE, SIZE, 3, generator=generator)

    def whole(self) -> None:
        """One step."""
        self.number += 1
        self.model.step_cb(self.optimizers, self.number)
        self.optimizers.zero_grad_all()
        loss = self._loss()
        loss.backward()
        self.optimizers.optimizer_step_all()
        self.optimizers.scheduler_step_all(self.number)
        self.model.step_post_backward(self.number)

    def forward(self) -> None:
        """Its loss alone."""
        self._loss()

    def rasterizer(self) -> None:
        """Forward and backward of `rasterize` alone."""
        from edit3dgs_ns.splats.rasterize import rasterize
        from edit3dgs_ns.splats.views import viewmats_from_c2w

        model, camera = self.model, self._camera()
        with torch.no_grad():
            gaussians, colors = model.shown_at(float(camera.times[0]))
            opacities = torch.sigmoid(model.gauss_params["opacities"][:, 0])
        values = (gaussians.means, gaussians.quats, gaussians.scales, opacities, colors)
        means, quats, scales, opacities, colors = (value.detach().requires_grad_() for value in values)
        render, _, _ = rasterize(
            means,
            quats,
            scales,
            opacities,
            colors,
            viewmats_from_c2w(camera.camera_to_worlds),
            camera.get_intrinsics_matrices(),
            SIZE,
            SIZE,
            sh_degree=3,
            backgrounds=torch.ones(1, 3),
            rasterize_mode=model.config.rasterize_mode,
        )
        render.backward(self.weights)

    def _camera(self) -> Any:
        camera = self.cameras[self.number % CAMERAS : self.number % CAMERAS + 1]
        camera.times = torch.full((1, 1), self.number * 7 % TIMESTEPS / (TIMESTEPS - 1))
        return camera

    def _loss(self) -> torch.Tensor:
        outputs = self.model.get_outputs(self._camera())
        batch = {"image": self.image}
        metrics = self.model.get_metrics_dict(outputs, batch)
        losses = self.model.get_loss_dict(outputs, batch, metrics)
        return sum(losses.values())  # type: ignore[return-value]
