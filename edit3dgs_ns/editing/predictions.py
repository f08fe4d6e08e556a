"""Conversion between a diffusion model's predictions and clean latents.

`PredictionSpace` is the interface for every kind of noise schedule. Here is that of Stable Diffusion; those of flow matching and
    EDM are in `sigma_predictions.py`.
A noisy latent is x = a x0 + s e, with the clean latent x0, standard normal noise e, a^2 + s^2 = 1 and a^2 the scheduler's
    `alphas_cumprod` (Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, eq. 4). A UNet predicts e
    (`epsilon`), v = a e - s x0 (`v_prediction`; Salimans and Ho, "Progressive Distillation", ICLR 2022, appendix D) or x0 itself
    (`sample`). Schedulers that hold x / a instead of x (Euler and its relatives) give x to the UNet: here x is always what the
    UNet was given.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.errors import UserError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class Rates(NamedTuple):
    """Shares of clean latent and noise in a noisy latent."""

    signal: float
    """a: how much of the clean latent."""
    noise: float
    """s: how much of the noise."""


class PredictionSpace(Protocol):
    """Converts the predictions that a scheduler expects; `noisy` is always what the network was given."""

    def noise_level(self, t: Tensor | float) -> float:
        """Share of the noise, s / (a + s) of a noisy latent a x0 + s e: the same meaning in every schedule."""
        ...

    def knows_clean(self, t: Tensor | float) -> bool:
        """A prediction at this timestep says what is clean."""
        ...

    def clean(
        self, prediction: Float[Tensor, "*any"], noisy: Float[Tensor, "*any"], t: Tensor | float
    ) -> Float[Tensor, "*any"]:
        """The clean latents that a prediction means, in float32."""
        ...

    def moved(
        self, prediction: Float[Tensor, "*any"], change: Float[Tensor, "*any"], t: Tensor | float
    ) -> Float[Tensor, "*any"]:
        """The prediction for the same noisy latents that means clean latents which differ by `change`."""
        ...

    def add_noise(
        self, clean: Float[Tensor, "*any"], noise: Float[Tensor, "*any"], t: Tensor
    ) -> Float[Tensor, "*any"]:
        """Clean latents at the noise level of a timestep of the schedule."""
        ...

    def begin_at(self, noise: float) -> None:
        """Cuts the schedule, which the scheduler has set, so that it begins at this noise (below 1)."""
        ...

    def start(
        self, clean: Float[Tensor, "*any"], noise: Float[Tensor, "*any"], amount: float, steps: int
    ) -> Float[Tensor, "*any"]:
        """The latents of the first step of a schedule that begins at this amount of noise (below 1)."""
        ...


class VariancePreservingSpace:
    """A `PredictionSpace` for schedulers with `alphas_cumprod`.

    Args:
        scheduler: any diffusers scheduler with `alphas_cumprod`.

    Raises:
        ValueError: the scheduler has no `alphas_cumprod` (those of flow matching, for example), or an unknown
            prediction type.
    """

    def __init__(self, scheduler: Any):
        name = type(scheduler).__name__
        if getattr(scheduler, "alphas_cumprod", None) is None:
            raise UserError(
                f"The scheduler {name} has no alphas_cumprod, so that views cannot share what is predicted. Give "
                "--pipeline.editor.scheduler ddim, or --pipeline.editor.share-prediction-until 1 to share attention alone."
            )
        self._type = getattr(scheduler.config, "prediction_type", "epsilon")
        if self._type not in PREDICTION_TYPES:
            raise UserError(
                f"The scheduler {name} has prediction_type {self._type!r}; expected one of {', '.join(PREDICTION_TYPES)}."
            )
        self._scheduler = scheduler
        self._alphas_cumprod = torch.as_tensor(scheduler.alphas_cumprod, dtype=torch.float64, device="cpu")

    def rates(self, t: Tensor | float) -> Rates:
        """Signal and noise at a timestep. Between two whole ones s / a is linear, as in diffusers' Euler schedulers."""
        last = len(self._alphas_cumprod) - 1
        t = min(max(float(t), 0.0), float(last))
        before, share = int(t), t - int(t)
        low = float(self._alphas_cumprod[before])
        if share == 0.0:
            return Rates(math.sqrt(low), math.sqrt(1 - low))
        high = float(self._alphas_cumprod[min(before + 1, last)])
        if high == 0.0:
            return Rates(0.0, 1.0)
        ratio = (1 - share) * math.sqrt((1 - low) / low) + share * math.sqrt((1 - high) / high)
        return Rates(1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio))

    def noise_level(self, t: Tensor | float) -> float:
        """See `PredictionSpace`."""
        signal, noise = self.rates(t)
        return noise / (signal + noise)

    def knows_clean(self, t: Tensor | float) -> bool:
        """A prediction at this timestep says what is clean. Of pure noise, predicted noise says nothing."""
        return self._type != "epsilon" or self.rates(t).signal > 0

    def clean(
        self, prediction: Float[Tensor, "*any"], noisy: Float[Tensor, "*any"], t: Tensor | float
    ) -> Float[Tensor, "*any"]:
        """The clean latents that a prediction means, in float32.

        Args:
            prediction: the UNet's.
            noisy: the latents as the UNet was given them.
            t: their timestep, at which `knows_clean` holds.
        """
        prediction, noisy = prediction.float(), noisy.float()
        if self._type == "sample":
            return prediction
        signal, noise = self.rates(t)
        if self._type == "v_prediction":
            return signal * noisy - noise * prediction
        assert signal > 0, "pure noise: the noise says nothing of what is clean"
        return (noisy - noise * prediction) / signal

    def moved(
        self, prediction: Float[Tensor, "*any"], change: Float[Tensor, "*any"], t: Tensor | float
    ) -> Float[Tensor, "*any"]:
        """The prediction for the same noisy latents that means clean latents which differ by `change`.

        Where `change` is 0 the prediction stays as it is, to the last bit.

        Args:
            prediction: the UNet's.
            change: what is added to the clean latents.
            t: the timestep; not that of a clean image, whose prediction cannot be moved.
        """
        signal, noise = self.rates(t)
        if self._type == "sample":
            factor = 1.0
        else:
            assert noise > 0, "a clean image leaves nothing to predict"
            factor = -signal / noise if self._type == "epsilon" else -1 / noise
        return prediction + (factor * change).to(prediction.dtype)

    def add_noise(
        self, clean: Float[Tensor, "*any"], noise: Float[Tensor, "*any"], t: Tensor
    ) -> Float[Tensor, "*any"]:
        """See `PredictionSpace`."""
        return self._scheduler.add_noise(clean, noise, t)

    def begin_at(self, noise: float) -> None:
        """See `PredictionSpace`; the noise is a fraction of the training schedule's timesteps."""
        scheduler = self._scheduler
        first = first_step_below(scheduler, noise, scheduler.num_inference_steps)
        scheduler.timesteps = scheduler.timesteps[first:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)

    def start(
        self, clean: Float[Tensor, "*any"], noise: Float[Tensor, "*any"], amount: float, steps: int
    ) -> Float[Tensor, "*any"]:
        """See `PredictionSpace`."""
        self._scheduler.set_timesteps(steps, device=clean.device)
        self.begin_at(amount)
        return self.add_noise(clean, noise, self._scheduler.timesteps[:1].repeat(len(clean)))


def first_step_below(scheduler: Any, noise: float, steps: int) -> int:
    """Position in `scheduler.timesteps` of the first that is not above a fraction of the schedule; the last step at least.

    Schedulers of second order visit a timestep twice; like diffusers' img2img, this begins at a whole step.
    """
    highest, order, timesteps = (
        noise * scheduler.config.num_train_timesteps,
        scheduler.order,
        scheduler.timesteps,
    )
    usable = [
        k * order for k in range(steps) if k * order < len(timesteps) and timesteps[k * order] <= highest
    ]
    return usable[0] if usable else (steps - 1) * order
