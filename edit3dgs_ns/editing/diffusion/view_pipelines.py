"""Copies of a pipeline, one for each view, that share its parts and ask its encoders nothing twice.

Every view's pipeline encodes the prompt, its original and the references anew, and large models have text encoders as large as
their network. What was encoded is therefore kept, by its content: the prompt for all views and rounds (with the view's original,
where the text encoder reads that too), the original for every round, and for retention.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from edit3dgs_ns.editing.diffusion.encodings import Encodings


class ViewPipelines:
    """Makes the pipelines of views.

    Args:
        pipeline: a loaded diffusers pipeline.
        device: where it computes.
    """

    def __init__(self, pipeline: Any, device: torch.device):
        self._pipeline, self._device = pipeline, device
        self._encodings = Encodings()
        self.vae = _RememberingAutoencoder(pipeline.vae, self._encodings)
        """The pipeline's autoencoder, which encodes an image once."""

    def make(self, scheduler: Any) -> Any:
        """A pipeline with the same parts and another scheduler, which says that it is on the device.

        LongCat's asks `self.device` where it should put its inputs, and that is wherever some part waits while weights are
        offloaded.
        """
        copied, kind = copy.copy(self._pipeline), type(self._pipeline)
        device = self._device
        copied.__class__ = type(kind.__name__, (kind,), {"device": property(lambda self: device)})
        copied.scheduler, copied.vae = scheduler, self.vae
        copied.encode_prompt = self._encodings.remembering(copied.encode_prompt)
        return copied


class _RememberingAutoencoder:
    """diffusers' autoencoder; of encodings there is the mode of the distribution, which is what editing pipelines take."""

    def __init__(self, vae: Any, encodings: Encodings):
        self._vae, self._encode = vae, encodings.remembering(self._encode_mode)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def encode(self, pixels: Tensor) -> Any:
        """As the autoencoder's own."""
        # In one order in memory: the last bits depend on it, and should not on who asks first.
        return _Encoded(_Mode(self._encode(pixels.contiguous())))

    def _encode_mode(self, pixels: Tensor) -> Tensor:
        mode: Tensor = self._vae.encode(pixels).latent_dist.mode()
        return mode


class _Mode:
    """A distribution of latents, of which the mode alone is known."""

    def __init__(self, latents: Tensor):
        self._latents = latents

    def mode(self) -> Tensor:
        """The most probable latents."""
        return self._latents


class _Encoded:
    """What an autoencoder's `encode` returns."""

    def __init__(self, latent_dist: _Mode):
        self.latent_dist = latent_dist
