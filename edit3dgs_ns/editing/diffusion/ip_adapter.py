"""A reference image for InstructPix2Pix: an IP-Adapter turns it into further words of the prompt.

Source: Ye et al., "IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models", 2023. The adapter's
    weights are in safetensors, and its image encoder in the folder `image_encoder` beside them, as on its authors' page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edit3dgs_ns.errors import UserError

OPTION = "--pipeline.editor.ip-adapter"
_ENCODER = "image_encoder"


class ImagePrompt(NamedTuple):
    """Embeddings for the guidance branches with and without the prompt, each of one row."""

    given: Tensor
    empty: Tensor

    def rows(self, texts: list[bool], views: int) -> list[Tensor]:
        """`image_embeds` of the UNet for a batch ordered (branch, view).

        Args:
            texts: of each branch, whether it is given the prompt.
            views: in the batch.
        """
        parts = [self.given if text else self.empty for text in texts]
        return [torch.cat([part.expand(views, *part.shape[1:]) for part in parts])]


def read_ip_adapter(pipeline: Any, path: Path, reference: Any, device: torch.device) -> ImagePrompt:
    """Adds an adapter to a pipeline's UNet, and returns the embeddings of a reference.

    Args:
        pipeline: diffusers', of InstructPix2Pix.
        path: of the adapter's weights.
        reference: the image.
        device: where it is encoded.
    """
    try:
        pipeline.load_ip_adapter(
            str(path.parent),
            subfolder="",
            weight_name=path.name,
            image_encoder_folder=_ENCODER,
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{OPTION} {path} cannot be loaded into this model ({type(error).__name__}: {error})."
        ) from error
    pipeline.image_encoder.to(device)
    with torch.no_grad():
        embeddings = pipeline.prepare_ip_adapter_image_embeds([reference], None, device, 1, True)[0]
    pipeline.register_modules(image_encoder=None)
    return ImagePrompt(embeddings[:1], embeddings[1:2])
