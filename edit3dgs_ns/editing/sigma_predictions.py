"""Predictions under schedules that are lists of noise levels: flow matching, and EDM; and which kind a scheduler is of.

Flow matching (Lipman et al., ICLR 2023; Liu et al., "Rectified Flow", ICLR 2023; FLUX, Qwen-Image): x = (1 - s) x0 + s e, and the
    network predicts v = e - x0. So x0 = x - s v, and a change d of x0 is one of -d / s in v.
EDM (Karras et al., NeurIPS 2022, eq. 7; CosXL): x = x0 + s e, the network is given c_in x, and x0 = c_skip x + c_out F.
Their s come from the scheduler's `sigmas`: resolution shifts them, so that a timestep alone says nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.editing.predictions import PredictionSpace, VariancePreservingSpace
from edit3dgs_ns.errors import UserError


def space_of(scheduler: Any) -> PredictionSpace:
    """The prediction space of a diffusers scheduler.

    Raises:
        ValueError: it is of no known kind.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    if hasattr(scheduler, "precondition_outputs"):
        return EDMSpace(scheduler)
    if getattr(scheduler, "alphas_cumprod", None) is not None:
        return VariancePreservingSpace(scheduler)
    config: Any = scheduler.config
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) and not config.invert_sigmas:
        return FlowMatchingSpace(scheduler)
    raise UserError(
        f"The model's scheduler is {type(scheduler).__name__}. Expected one of Stable Diffusion's kind (with alphas_cumprod), "
        "FlowMatchEulerDiscreteScheduler, or one of EDM's."
    )


class _Sigmas:
    """What flow matching and EDM have in common: the noise level of a timestep is looked up in the scheduler's list."""

    def __init__(self, scheduler: Any):
        self._scheduler = scheduler

    def knows_clean(self, t: Tensor | float) -> bool:
        """Always: these networks predict what is clean of pure noise too."""
        return True

    def _sigma(self, t: Tensor | float) -> float:
        timesteps = self._scheduler.timesteps
        found = (timesteps == torch.as_tensor(t, device=timesteps.device)).nonzero()
        assert len(found), f"{t} is none of the schedule's timesteps"
        return float(self._scheduler.sigmas[int(found[0])])

    def _cut(self, first: float) -> Tensor:
        """The schedule's noise levels below `first`, with it before them."""
        sigmas = self._scheduler.sigmas
        below = sigmas[:-1][sigmas[:-1] < first]
        self._scheduler.sigmas = torch.cat([sigmas.new_tensor([first]), below, sigmas[-1:]])
        return self._scheduler.sigmas[:-1].to(self._scheduler.timesteps.device)


class FlowMatchingSpace(_Sigmas):
    """The `PredictionSpace` of `FlowMatchEulerDiscreteScheduler`."""

    def noise_level(self, t: Tensor | float) -> float:
        """See `PredictionSpace`."""
        return self._sigma(t)

    def clean(
        self, prediction: Float[Tensor, "*any"], noisy: Float[Tensor, "*any"], t: Tensor | float
    ) -> Float[Tensor, "*any"]:
        """See `PredictionSpace`."""
        return noisy.float() - self._sigma(t) * prediction.float()

    def moved(
        self, prediction: Float[Tensor, "*any"], change: Float[Tensor, "*any"], t: Tensor | float
    ) -> Float[Tensor, "*any"]:
        """See `PredictionSpace`."""
        return prediction - (change / self._sigma(t)).to(prediction.dtype)

    def add_noise(
        self, clean: Float[Tensor, "*any"], noise: Float[Tensor, "*any"], t: Tensor
    ) -> Float[Tensor, "*any"]:
        """See `PredictionSpace`."""
        sigma = self._sigma(t.flatten()[0])
        return (1 - sigma) * clean + sigma * noise

    def begin_at(self, noise: float) -> None:
        """See `PredictionSpace`; the noise is a noise level."""
        self._scheduler.timesteps = self._cut(noise) * self._scheduler.config.num_train_timesteps

    def start(
        self, clean: Float[Tensor, "*any"], noise: Float[Tensor, "*any"], amount: float, steps: int
    ) -> Float[Tensor, "*any"]:
        """See `PredictionSpace`."""
        return (1 - amount) * clean + amount * noise


class EDMSpace(_Sigmas):
    """The `PredictionSpace` of EDM's schedulers, such as `EDMEulerScheduler`."""

    def noise_level(self, t: Tensor | float) -> float:
        """See `PredictionSpace`."""
        sigma = self._sigma(t)
        return sigma / (1 + sigma)

    def clean(
        self, prediction: Float[Tensor, "*any"], noisy: Float[Tensor, "*any"], t: Tensor | float
    ) -> Float[Tensor, "*any"]:
        """See `PredictionSpace`."""
        sigma, data = self._sigma(t), self._scheduler.config.sigma_data
        latents = noisy.float() * math.hypot(sigma, data)  # which the network is given with unit variance
        return self._scheduler.precondition_outputs(latents, prediction.float(), sigma)

    def moved(
        self, prediction: Float[Tensor, "*any"], change: Float[Tensor, "*any"], t: Tensor | float
    ) -> Float[Tensor, "*any"]:
        """See `PredictionSpace`."""
        factor = float(self._scheduler.precondition_outputs(torch.zeros(()), torch.ones(()), self._sigma(t)))
        return prediction + (change / factor).to(prediction.dtype)

    def add_noise(
        self, clean: Float[Tensor, "*any"], noise: Float[Tensor, "*any"], t: Tensor
    ) -> Float[Tensor, "*any"]:
        """See `PredictionSpace`."""
        return clean + self._sigma(t.flatten()[0]) * noise

    def begin_at(self, noise: float) -> None:
        """See `PredictionSpace`; the noise is a noise level."""
        self._scheduler.timesteps = self._scheduler.precondition_noise(self._cut(noise / (1 - noise)))

    def start(
        self, clean: Float[Tensor, "*any"], noise: Float[Tensor, "*any"], amount: float, steps: int
    ) -> Float[Tensor, "*any"]:
        """See `PredictionSpace`."""
        return clean + amount / (1 - amount) * noise
