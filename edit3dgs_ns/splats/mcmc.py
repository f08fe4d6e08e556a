"""Densification of bound Gaussians by sampling (3DGS-MCMC), as an alternative to gradients.

Kheradmand et al., "3D Gaussian Splatting as Markov Chain Monte Carlo" (NeurIPS 2024): new Gaussians stand where opaque ones are,
transparent ones are moved there, positions are shaken, and nothing is ever reset. Here with bindings: a new Gaussian belongs to the
face of the one it was drawn from, and a face never loses its last Gaussian. A Gaussian is drawn at most once in a round, so that
equation 9 of the paper is only needed for N = 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from gsplat.strategy.ops import duplicate, remove
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.splats.binding import quat_to_rotmat
from edit3dgs_ns.splats.strategy import BoundStrategy, Optimizers, Parameters, spare_last_of_face

_SHARPNESS, _TRANSPARENT = 100.0, 0.005
"""Only Gaussians about as transparent as this are shaken (the paper's section 3.2, with its constants)."""


@dataclass
class BoundMcmcStrategy(BoundStrategy):
    """Draws new Gaussians from the opaque ones; `grow_*` options and resets are not used."""

    growth: float = 0.05
    """Share of Gaussians that is added in every round, until there are `max_gaussians`."""
    noise: float = 500.0
    """How strongly transparent Gaussians are shaken, per learning rate of the means and local covariance."""

    def step_pre_backward(self, *args: Any, **kwargs: Any) -> None:
        """Image gradients are not needed."""

    def step_post_backward(
        self,
        params: Parameters,
        optimizers: Optimizers,
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        packed: bool = False,
    ) -> None:
        """Every `refine_every` steps moves transparent Gaussians and adds new ones; shakes positions in every step."""
        if step >= self.refine_stop_iter:
            return
        if step > self.refine_start_iter and step % self.refine_every == 0:
            self._resample(params, optimizers, state)
        self._shake(params, optimizers["means"].param_groups[0]["lr"])

    @torch.no_grad()
    def _resample(self, params: Parameters, optimizers: Optimizers, state: dict[str, Any]) -> None:
        opacities = torch.sigmoid(params["opacities"].flatten())
        doomed = spare_last_of_face(opacities < self.prune_opa, state["binding"], opacities)
        count, dead = len(opacities), int(doomed.sum())
        target = min(self.max_gaussians, int((1 + self.growth) * count))
        alive = opacities >= self.prune_opa
        wanted = min(max(target - (count - dead), 0), int(alive.sum()))
        if wanted:
            chances = torch.where(alive, opacities, torch.zeros_like(opacities))
            drawn = torch.zeros_like(doomed)
            drawn[torch.multinomial(chances, wanted)] = True
            self._halve(params, drawn, opacities[drawn])
            duplicate(params=params, optimizers=optimizers, state=state, mask=drawn)  # type: ignore[arg-type]
        if dead:
            doomed = torch.cat([doomed, doomed.new_zeros(wanted)])
            remove(params=params, optimizers=optimizers, state=state, mask=doomed)  # type: ignore[arg-type]

    @staticmethod
    def _halve(params: Parameters, drawn: Tensor, opacities: Float[Tensor, " drawn"]) -> None:
        """Sets opacity and scale of two coincident Gaussians that render like the former one (equation 9, N = 2)."""
        half = 1 - torch.sqrt(1 - opacities)
        factor = opacities / (2 * half - half * half / 2**0.5)
        params["opacities"].data[drawn] = torch.logit(half.clamp(1e-4, 1 - 1e-4))[:, None]
        params["scales"].data[drawn] += torch.log(factor)[:, None]

    @torch.no_grad()
    def _shake(self, params: Parameters, rate: float) -> None:
        opacities = torch.sigmoid(params["opacities"])
        amount = torch.sigmoid(-_SHARPNESS * (opacities - _TRANSPARENT)) * (rate * self.noise)
        rotation = quat_to_rotmat(params["quats"])
        axes = rotation * torch.exp(2 * params["scales"])[:, None]
        noise = torch.randn_like(params["means"]) * amount
        covariance = axes @ rotation.transpose(1, 2)
        params["means"].data += (covariance @ noise[..., None])[..., 0]
