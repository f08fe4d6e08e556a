"""Latents as images: how a pipeline's tokens lie in the canvas, and what its autoencoder makes of images.

Views agree, and originals are put back, at positions of the image. UNets take latents as they are, (channels, rows, columns).
FLUX, Qwen-Image and LongCat cut them into tokens of 2 x 2 positions; FLUX.2 normalises the tokens besides, each of the four
positions by statistics of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class LatentLayout:
    """The latents of one canvas size in one model.

    Args:
        vae: diffusers' image autoencoder.
        canvas: height and width of the images, in pixels.
        reduction: pixels of a latent position, each way.
        device: where it computes.
        packed: the network takes tokens of 2 x 2 positions.
    """

    def __init__(
        self, vae: Any, canvas: tuple[int, int], reduction: int, device: torch.device, *, packed: bool
    ):
        self._vae, self._packed = vae, packed
        self.size = canvas[0] // reduction, canvas[1] // reduction
        norm = getattr(vae, "bn", None)
        self._token_mean = self._token_std = None
        if norm is not None:
            mean, variance = (
                value.to(device, torch.float32) for value in (norm.running_mean, norm.running_var)
            )
            self._token_mean, self._token_std = mean, (variance + vae.config.batch_norm_eps).sqrt()

    # -- tokens and positions ------------------------------------------------------------------------------------

    def unpack(self, latents: Tensor) -> Float[Tensor, "views channels h w"]:
        """From what the network takes to positions of the picture; only the order of the numbers changes."""
        if not self._packed:
            return latents
        rows, columns = self.size
        return F.pixel_shuffle(latents.mT.unflatten(2, (rows // 2, columns // 2)), 2)

    def pack(self, latents: Float[Tensor, "views channels h w"]) -> Tensor:
        """The inverse of `unpack`."""
        if not self._packed:
            return latents
        return F.pixel_unshuffle(latents, 2).flatten(2).mT

    def given(self, latents: Float[Tensor, "views channels h w"]) -> Tensor:
        """As the pipeline takes them for its argument `latents`: packed, but FLUX.2's packs them itself."""
        return F.pixel_unshuffle(latents, 2) if self._token_mean is not None else self.pack(latents)

    @property
    def normalisation(self) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Factor and summand (1, channels, h, w) that make positions comparable; None where they are as they come."""
        if self._token_mean is None or self._token_std is None:
            return None, None
        tokens = self.size[0] * self.size[1] // 4
        std, mean = (
            self.unpack(value.expand(1, tokens, -1)) for value in (self._token_std, self._token_mean)
        )
        return std, mean

    # -- noise and images ----------------------------------------------------------------------------------------

    def noise(
        self, generators: Iterable[torch.Generator], channels: int, dtype: torch.dtype
    ) -> Float[Tensor, "views channels h w"]:
        """Standard normal noise of every view, drawn in the order in which the family's pipeline draws it."""
        shape = (1, channels, *self.size)
        if self._token_mean is None:
            return torch.cat([torch.randn(shape, generator=g, dtype=dtype) for g in generators])
        drawn = (1, 4 * channels, self.size[0] // 2 * (self.size[1] // 2))
        return torch.cat([self.unpack(torch.randn(drawn, generator=g, dtype=dtype).mT) for g in generators])

    def encode(
        self, canvas: Float[Tensor, "views 3 height width"], encoded: Callable[[], None] | None = None
    ) -> Float[Tensor, "views channels h w"]:
        """Latents of images in [0, 1], normalised as the network takes them, in float32; one image at a time.

        Args:
            canvas: the images.
            encoded: called after each of them.
        """
        latents = []
        for image in canvas:
            latents.append(self._encode_one(image[None]))
            if encoded is not None:
                encoded()
        return torch.cat(latents)

    def _encode_one(self, image: Float[Tensor, "1 3 height width"]) -> Float[Tensor, "1 channels h w"]:
        vae, config = self._vae, self._vae.config
        overflows = vae.dtype == torch.float16 and getattr(config, "force_upcast", False)
        if overflows:
            vae.to(torch.float32)
        pixels = (2 * image - 1).to(vae.dtype)
        is_video = hasattr(config, "z_dim")  # Qwen-Image's, which takes frames
        latents = vae.encode(pixels[:, :, None] if is_video else pixels).latent_dist.mode().float()
        if overflows:
            vae.to(torch.float16)
        if is_video:
            mean, std = (
                latents.new_tensor(v).view(1, -1, 1, 1) for v in (config.latents_mean, config.latents_std)
            )
            return (latents[:, :, 0] - mean) / std
        factor, summand = self.normalisation
        if factor is not None and summand is not None:
            return (latents - summand) / factor
        return (latents - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor
