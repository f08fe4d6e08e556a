"""Retention of parts of the original: its latents are put back under a mask while the rest is denoised.

At the later denoising steps the latents under the mask become those of the original image, noised to the level that the others
    have reached, as inpainting with an unconditional model does it (Lugmayr et al., "RePaint", CVPR 2022, eq. 8; Avrahami et
    al., "Blended Latent Diffusion", SIGGRAPH 2023). Under eyes and mouth this retains the expression; under everything but the
    hair it confines the edit to the hair.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.editing.editor import KeepOptions
from edit3dgs_ns.editing.framing import Frame
from edit3dgs_ns.errors import UserError


class LatentKeeper:
    """Puts the original's latents back after denoising steps.

    With `keep_strength` 1 and `keep_until` 1 the latents where the mask is 1 are the original's exactly after the last
    step, and those where it is 0 are never touched.

    Args:
        original_latents: of the original images, as the UNet sees them (scaled), without noise.
        mask_latent: 1 where the original is kept, 0 where the edit goes on; in between they are mixed.
        noise: standard normal noise, the same that the edit started from.
        scheduler: the diffusers scheduler of the loop; only its `add_noise` is used.
        options: how much and when.
    """

    def __init__(
        self,
        original_latents: Float[Tensor, "views channels h w"],
        mask_latent: Float[Tensor, "views 1 h w"],
        noise: Float[Tensor, "views channels h w"],
        scheduler: Any,
        options: KeepOptions | None = None,
    ):
        views, _, height, width = original_latents.shape
        if mask_latent.shape != (views, 1, height, width) or noise.shape != original_latents.shape:
            raise UserError(
                f"mask_latent {tuple(mask_latent.shape)} and noise {tuple(noise.shape)}: expected "
                f"{(views, 1, height, width)} and {tuple(original_latents.shape)}."
            )
        self._original, self._noise, self._scheduler = original_latents, noise, scheduler
        self._options = options or KeepOptions()
        self._share = self._options.keep_strength * mask_latent.to(original_latents)

    def apply(
        self, latents: Float[Tensor, "views channels h w"], t_next: Tensor | None, step: int, total: int
    ) -> Float[Tensor, "views channels h w"]:
        """The latents after a step, with the original put back where and when it is to be kept.

        Args:
            latents: what the scheduler's step gave.
            t_next: the timestep that is denoised next, whose noise level the latents have; None after the last step.
            step: which of the round's steps was done, from 0.
            total: how many steps the round takes.
        """
        done = (step + 1) / total
        if not self._options.keep_from < done <= self._options.keep_until:
            return latents
        original = self._original
        if t_next is not None:
            at = torch.as_tensor(t_next, device=original.device).reshape(1).expand(len(original))
            original = self._scheduler.add_noise(original, self._noise, at)
        # Not latents + share * (original - latents): that leaves a rounding error where the share is 1.
        return (1 - self._share) * latents + self._share * original


def latent_mask(
    keep_mask: Float[np.ndarray, "views height width"],
    frame: Frame,
    size: tuple[int, int],
    device: torch.device,
) -> Float[Tensor, "views 1 h w"]:
    """A request's mask in latent space: the share of each latent pixel that the mask covers; of the padding, nothing.

    So the mask's border is soft over one latent pixel, which is 4 or 8 of the image. It is not widened: with a few latent
    pixels more the skin around an eye would stay unpainted in a painted face.

    Args:
        keep_mask: in [0, 1], 1 where the original is kept; the size of the request's images.
        frame: how the images lie in the canvas.
        size: rows and columns of the latents of the canvas.
        device: where it is wanted.
    """
    mask = torch.from_numpy(np.ascontiguousarray(keep_mask)).to(device, torch.float32)[:, None]
    if frame.scaled != frame.image:
        mask = F.interpolate(mask, size=frame.scaled, mode="bilinear", antialias=True)
    return F.adaptive_avg_pool2d(F.pad(mask, frame.margins), size)
