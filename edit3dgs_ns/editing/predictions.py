"""Conversion between a UNet's predictions (epsilon, v or sample) and clean latents.

A noisy latent is x = a x0 + s e, with the clean latent x0, standard normal noise e, a^2 + s^2 = 1 and a^2 the scheduler's
    `alphas_cumprod` (Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, eq. 4). A UNet predicts e
    (`epsilon`), v = a e - s x0 (`v_prediction`; Salimans and Ho, "Progressive Distillation", ICLR 2022, appendix D) or x0 itself
    (`sample`). Schedulers that hold x / a instead of x (Euler and its relatives) give x to the UNet: here x is always what the
    UNet was given.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

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


class PredictionSpace:
    """Converts the predictions that a scheduler expects.

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
                "--pipeline.editor.scheduler ddim, or --pipeline.editor.share-prediction-until 1000 to share attention alone."
            )
        self._type = getattr(scheduler.config, "prediction_type", "epsilon")
        if self._type not in PREDICTION_TYPES:
            raise UserError(
                f"The scheduler {name} has prediction_type {self._type!r}; expected one of {', '.join(PREDICTION_TYPES)}."
            )
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
