"""Clean latents against what diffusers' own schedulers say, and back."""

from __future__ import annotations

import pytest
import torch

from edit3dgs_ns.editing.noise_levels import level_of_timestep
from edit3dgs_ns.editing.predictions import VariancePreservingSpace

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS = {
    "DDIMScheduler": {"clip_sample": False, "set_alpha_to_one": False},
    "DDPMScheduler": {"clip_sample": False},
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
}


def _scheduler(name: str, **options):
    import diffusers

    return getattr(diffusers, name)(**(SCHEDULE | SCHEDULERS.get(name, {}) | options))


KINDS = [
    (name, prediction_type)
    for name in SCHEDULERS
    for prediction_type in ("epsilon", "v_prediction", "sample")
    if (name, prediction_type) != ("EulerAncestralDiscreteScheduler", "sample")  # which it does not take
]


@pytest.mark.parametrize("steps", [4, 7])
@pytest.mark.parametrize(("name", "prediction_type"), KINDS)
def test_the_clean_latents_are_those_of_the_scheduler_itself(name, prediction_type, steps):
    """At every timestep, also where Euler's lie between two whole ones."""
    scheduler = _scheduler(name, prediction_type=prediction_type)
    scheduler.set_timesteps(steps)
    space, generator = VariancePreservingSpace(scheduler), torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 3, 3, generator=generator) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        prediction, change = torch.randn(2, 2, 4, 3, 3, generator=generator).unbind()
        noisy = scheduler.scale_model_input(latents, t)
        done = scheduler.step(prediction, t, latents, return_dict=True)
        ours = space.clean(prediction, noisy, t)
        torch.testing.assert_close(
            ours, done.pred_original_sample, rtol=1e-3, atol=1e-4 * float(ours.abs().max())
        )
        moved = space.clean(space.moved(prediction, change, t), noisy, t)
        torch.testing.assert_close(moved, ours + change, rtol=1e-4, atol=1e-4 * float(ours.abs().max()))
        latents = done.prev_sample


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_without_a_change_not_a_bit_of_the_prediction_changes(prediction_type):
    space = VariancePreservingSpace(_scheduler("DDIMScheduler", prediction_type=prediction_type))
    prediction = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    for t in (999, 500, 1):
        moved = space.moved(prediction, torch.zeros(1, 4, 8, 8), t)
        assert moved.dtype == torch.float16 and torch.equal(moved, prediction)


def test_pure_noise_says_nothing_of_the_clean_when_noise_is_predicted():
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    spaces = {
        kind: VariancePreservingSpace(_scheduler("DDIMScheduler", prediction_type=kind, **zero))
        for kind in ("epsilon", "v_prediction", "sample")
    }
    assert {kind: space.knows_clean(999) for kind, space in spaces.items()} == {
        "epsilon": False,
        "v_prediction": True,
        "sample": True,
    }
    assert all(space.knows_clean(998) for space in spaces.values())
    noisy, prediction = torch.randn(2, 1, 4, 2, 2)
    torch.testing.assert_close(spaces["v_prediction"].clean(prediction, noisy, 999), -prediction)


def test_schedulers_without_a_noise_schedule_are_refused_with_what_to_do():
    from diffusers import FlowMatchEulerDiscreteScheduler

    with pytest.raises(ValueError, match=r"FlowMatch.*alphas_cumprod.*share-prediction-until 1\b"):
        VariancePreservingSpace(FlowMatchEulerDiscreteScheduler())
    scheduler = _scheduler("DDPMScheduler")
    scheduler.register_to_config(prediction_type="velocity")
    with pytest.raises(ValueError, match="velocity"):
        VariancePreservingSpace(scheduler)


@pytest.mark.parametrize("t", [0, 123, 600, 999])
def test_the_noise_level_of_a_timestep_is_the_schedules(t):
    space = VariancePreservingSpace(_scheduler("DDIMScheduler"))
    assert level_of_timestep(t) == pytest.approx(space.noise_level(t), abs=1e-5)
    assert level_of_timestep(1000) == 1
