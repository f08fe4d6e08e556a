"""Learning rates while edits are fitted, and those of the base training before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nerfstudio.engine.optimizers import AdamOptimizerConfig

from edit3dgs_ns.splats.fitting import GAUSSIAN_EDIT_RATES
from edit3dgs_ns.training.optimizers import avatar_optimizers
from edit3dgs_ns.training.schedulers import rate_at


def edit_optimizers() -> dict[str, dict[str, Any]]:
    """Adam for every parameter group while edits are fitted.

    The avatar is trained already: positions and sizes move little, colours freely. The learning rates stay
    until the final steps, where the pipeline lowers them; while an avatar is trained first, it sets those
        of `rigged-splatfacto-fast`.
    """

    def adam(rate: float) -> dict[str, Any]:
        return {"optimizer": AdamOptimizerConfig(lr=rate, eps=1e-15), "scheduler": None}

    return {
        **{name: adam(rate) for name, rate in GAUSSIAN_EDIT_RATES.items()},
        "light": adam(1e-3),
        "flame_expr": adam(1e-4),
        "flame_translation": adam(1e-6),
        "flame_rotation": adam(1e-5),
        "flame_neck": adam(1e-5),
        "flame_jaw": adam(1e-5),
        "flame_eyes": adam(1e-5),
    }


def base_rates(base_steps: int) -> dict[str, Callable[[int], float]]:
    """The learning rates of `ns-train rigged-splatfacto-fast`, as functions of the step."""

    def rate(group: dict[str, Any]) -> Callable[[int], float]:
        first, schedule = group["optimizer"].lr, group["scheduler"]
        return lambda step: first if schedule is None else rate_at(schedule, first, step)

    return {name: rate(group) for name, group in avatar_optimizers(max(base_steps, 1)).items()}
