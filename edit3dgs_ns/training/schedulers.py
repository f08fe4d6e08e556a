"""A learning-rate schedule whose state can be read back.

Nerfstudio's exponential schedule returns `np.float64`, which ends up in the checkpoint and which `torch.load` refuses since torch
2.6 (`weights_only=True`). This one computes with Python floats; the curve is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Type  # noqa: UP035  (Nerfstudio's configs are read at run time)

from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


@dataclass
class ExponentialSchedulerConfig(SchedulerConfig):
    """Exponential decay from the optimizer's learning rate to `lr_final`."""

    _target: Type = field(default_factory=lambda: ExponentialScheduler)  # noqa: UP006
    """target class to instantiate"""
    lr_final: float = 1e-5
    """Learning rate at `max_steps` and after."""
    max_steps: int = 30_000
    """Number of steps that the decay takes."""
    delay_steps: int = 0
    """Steps at the full learning rate before the decay begins."""


def rate_at(config: ExponentialSchedulerConfig, first: float, step: int) -> float:
    """`first^(1 - t) lr_final^t`, t rising from 0 to 1 between `delay_steps` and `max_steps`."""
    span = max(config.max_steps - config.delay_steps, 1)
    share = min(max((step - config.delay_steps) / span, 0.0), 1.0)
    return first * math.exp(math.log(config.lr_final / first) * share)


class ExponentialScheduler(Scheduler):
    """The learning rate of a step is `rate_at`."""

    config: ExponentialSchedulerConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LRScheduler:
        return LambdaLR(optimizer, lr_lambda=lambda step: rate_at(self.config, lr_init, step) / lr_init)


def scaled_rates(group: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """The optimizer and scheduler configuration of a parameter group with all learning rates times `factor`."""
    optimizer, scheduler = group["optimizer"], group["scheduler"]
    if scheduler is not None:
        scheduler = replace(scheduler, lr_final=scheduler.lr_final * factor)
    return {"optimizer": replace(optimizer, lr=optimizer.lr * factor), "scheduler": scheduler}
