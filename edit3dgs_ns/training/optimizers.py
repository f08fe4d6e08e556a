"""Learning rates of an avatar's parameter groups, as Nerfstudio's optimizer configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nerfstudio.engine.optimizers import AdamOptimizerConfig

from edit3dgs_ns.training.schedulers import ExponentialSchedulerConfig


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Adam that updates parameter and moments in one pass, on the CPU too: the same steps but for rounding."""

    fused: bool = True
    """One pass over each parameter; PyTorch's own choice on a CPU is one for each of eight operations."""


def avatar_optimizers(steps: int) -> dict[str, dict[str, Any]]:
    """Adam for every parameter group of an avatar that is trained for `steps`.

    GaussianAvatars' rates (section 3.4), for a training some hundred times as short: where its positions decay from 5e-3 to
    5e-5 over 600,000 steps, ours begin higher and all rates decay, because a constant rate leaves noise that a short training
    cannot average out.
    """

    def adam(rate: float, final: float | None = None) -> dict[str, Any]:
        schedule = None if final is None else ExponentialSchedulerConfig(lr_final=final, max_steps=steps)
        return {"optimizer": FusedAdamConfig(lr=rate, eps=1e-15), "scheduler": schedule}

    return {
        "means": adam(2e-2, 1e-3),
        "features_dc": adam(1e-2, 1e-3),
        "features_rest": adam(1e-3, 1e-4),
        "opacities": adam(5e-2, 1e-2),
        "scales": adam(2e-2, 2e-3),
        "quats": adam(5e-3, 5e-4),
        "expression_means": adam(2e-3, 2e-4),
        "expression_colors": adam(2e-3, 2e-4),
        "light": adam(1e-2, 1e-3),
        # High at first, to find the way back from a tracker's errors; low in the end, not to add errors of their own.
        "flame_expr": adam(2e-3, 1e-4),
        "flame_translation": adam(2e-5, 1e-6),
        "flame_rotation": adam(2e-4, 1e-5),
        "flame_neck": adam(2e-4, 1e-5),
        "flame_jaw": adam(2e-4, 1e-5),
        "flame_eyes": adam(2e-4, 1e-5),
    }


def gaussian_avatars_optimizers(steps: int) -> dict[str, dict[str, Any]]:
    """GaussianAvatars' Adam for every parameter group: constant rates, but for the positions', which decay over `steps`.

    The rate of `means` is multiplied by the extent of the cameras (`scale_position_rate`).
    """

    def adam(rate: float, final: float | None = None) -> dict[str, Any]:
        schedule = None if final is None else ExponentialSchedulerConfig(lr_final=final, max_steps=steps)
        return {"optimizer": FusedAdamConfig(lr=rate, eps=1e-15), "scheduler": schedule}

    return {
        "means": adam(5e-3, 5e-5),
        "features_dc": adam(2.5e-3),
        "features_rest": adam(1.25e-4),
        "opacities": adam(5e-2),
        "scales": adam(1.7e-2),
        "quats": adam(1e-3),
        "flame_expr": adam(1e-3),
        "flame_translation": adam(1e-6),
        "flame_rotation": adam(1e-5),
        "flame_neck": adam(1e-5),
        "flame_jaw": adam(1e-5),
        "flame_eyes": adam(1e-5),
        # Not in GaussianAvatars, and off in this method.
        "expression_means": adam(1e-4),
        "expression_colors": adam(1e-4),
        "light": adam(1e-4),
    }
