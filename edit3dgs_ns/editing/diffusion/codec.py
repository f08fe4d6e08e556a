"""Conversion of images to latents and back, and of prompts to text embeddings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.editing.diffusion.memory import ForwardLimit
from edit3dgs_ns.editing.editor import Finished
from edit3dgs_ns.editing.framing import Frame, to_tensor

logger = logging.getLogger(__name__)


class ImageCodec:
    """Encodes images to latents and decodes latents to images.

    Args:
        vae: diffusers' image autoencoder.
        device: where it computes.
        dtype: of the latents, which may be finer than the autoencoder's own.
        views_per_forward: images that go through it together.
    """

    def __init__(self, vae: Any, device: torch.device, dtype: torch.dtype, views_per_forward: int):
        self._vae, self._device, self._dtype = vae, device, dtype
        self._limit = ForwardLimit(views_per_forward)

    @property
    def scale(self) -> float:
        """The denoised latents are the autoencoder's times this."""
        return self._vae.config.scaling_factor

    def encode(
        self,
        images: Float[np.ndarray, "views height width 3"],
        frame: Frame,
        encoded_views: Callable[[int], None] | None = None,
    ) -> Float[Tensor, "views channels h w"]:
        """Unscaled latents of images in [0, 1]: the mode of the autoencoder's distribution.

        Args:
            images: to encode.
            frame: how they lie in the canvas.
            encoded_views: called with the number of images that have just been encoded.
        """
        latents: dict[int, Tensor] = {}

        def encode(views: Sequence[int]) -> None:
            canvas = frame.enter(to_tensor(images[list(views)], self._device))
            encoded = self._vae.encode((2 * canvas - 1).to(self._vae.dtype)).latent_dist.mode()
            latents.update(zip(views, encoded.to(self._dtype), strict=True))
            if encoded_views is not None:
                encoded_views(len(views))

        self._limit.each(range(len(images)), encode)
        return torch.stack([latents[view] for view in range(len(images))])

    def decode(
        self, latents: Float[Tensor, "views channels h w"], frame: Frame, finished: Finished | None = None
    ) -> Float[np.ndarray, "views height width 3"]:
        """Images in [0, 1] of scaled latents, of the size they had before the frame; NaN where the decoder overflows.

        Args:
            latents: as they come from the diffusion.
            frame: how the images lie in the canvas.
            finished: called with every image as soon as it is there.
        """
        images = np.empty((len(latents), *frame.image, 3), np.float32)

        def decode(views: Sequence[int]) -> None:
            scaled = latents[list(views)].to(self._vae.dtype) / self.scale
            decoded = self._vae.decode(scaled, return_dict=False)[0].float()
            canvas = (decoded / 2 + 0.5).clamp(0, 1)
            canvas[~decoded.isfinite()] = (
                torch.nan
            )  # an infinity would be clamped to black or white in silence
            images[list(views)] = frame.leave(canvas).permute(0, 2, 3, 1).cpu().numpy()
            if finished is not None:
                for view in views:
                    finished(view, images[view])

        self._limit.each(range(len(latents)), decode)
        return images


def encode_prompt(
    prompt: str, tokenizer: Any, text_encoder: Any, device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, "1 tokens width"], Float[Tensor, "1 tokens width"]]:
    """Text embeddings of the prompt and of the empty prompt, padded to the tokenizer's length."""
    length = tokenizer.model_max_length
    tokens = tokenizer(
        [prompt, ""], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    whole = tokenizer(prompt).input_ids
    if len(whole) > length:
        cut = tokenizer.decode(whole[length - 1 : -1])
        logger.warning(
            "The prompt is longer than the text encoder's %d tokens; it does not see: %r", length, cut
        )
    masked = getattr(text_encoder.config, "use_attention_mask", False)
    mask = tokens.attention_mask.to(device) if masked else None
    vectors = text_encoder(tokens.input_ids.to(device), attention_mask=mask)[0].to(dtype)
    return vectors[:1], vectors[1:]
