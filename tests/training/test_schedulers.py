"""The learning rates of a training, and of the base training inside an edit."""

from __future__ import annotations

import pytest
import torch

from edit3dgs_ns.edit_training.optimizers import base_rates
from edit3dgs_ns.training.optimizers import avatar_optimizers
from edit3dgs_ns.training.schedulers import ExponentialSchedulerConfig, rate_at


def test_a_rate_falls_by_equal_factors_from_its_delay_to_its_end() -> None:
    config = ExponentialSchedulerConfig(lr_final=1e-4, max_steps=300, delay_steps=100)
    rates = [rate_at(config, 1e-2, step) for step in (0, 100, 200, 300, 900)]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-4, 1e-4])


def test_the_schedule_multiplies_the_optimizer_s_own_rate() -> None:
    config = ExponentialSchedulerConfig(lr_final=1e-3, max_steps=20, delay_steps=5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    scheduler = config.setup().get_scheduler(optimizer=optimizer, lr_init=1e-2)
    for step in range(25):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate_at(config, 1e-2, step))
        optimizer.step()
        scheduler.step()


def test_the_base_training_of_an_edit_has_the_rates_of_the_fast_method() -> None:
    rates = base_rates(500)
    for name, group in avatar_optimizers(500).items():
        first, last = group["optimizer"].lr, group["scheduler"].lr_final
        assert rates[name](0) == pytest.approx(first)
        assert rates[name](250) == pytest.approx((first * last) ** 0.5)
        assert rates[name](500) == pytest.approx(last)
