"""A CLIP as a function: images and captions to unit vectors (Radford et al., "Learning transferable visual models from natural
language supervision", ICML 2021), through transformers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from edit3dgs_ns.evaluation.clip_files import DEFAULT_CLIP, clip_note, clip_words, find_clip, read_parts


class Clip:
    """Embeds images and captions.

    Args:
        model: hub id, folder in transformers' format, or `demo`.
        device: where it runs.
        batch: images embedded at once.

    Raises:
        FileNotFoundError, ValueError: there is no such CLIP, or it is not whole; see `find_clip`.
    """

    def __init__(self, model: str | Path = DEFAULT_CLIP, device: torch.device | str = "cpu", batch: int = 16):
        source = find_clip(model)
        self.name = str(model)
        self.note = clip_note(source)
        """Note to be shown with every score of this model; empty for models that are not ours."""
        self._words = clip_words(source)
        self.batch = batch
        network, self._tokenizer, self._processor = read_parts(source)
        self._network: Any = network.to(device).eval()
        self._device = torch.device(device)

    @property
    def size(self) -> int:
        """Length of an embedding."""
        return int(self._network.config.projection_dim)

    @property
    def fingerprint(self) -> str:
        """Hash of the weights and of the image processor's settings, the key of cached embeddings."""
        digest = hashlib.sha256(self._processor.to_json_string().encode())
        state = self._network.state_dict()
        for name in sorted(state):
            digest.update(name.encode())
            digest.update(state[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def unknown_words(self, text: str) -> list[str]:
        """Words of a caption that are not among the model's training captions, in order; empty where these are not known.

        A small model spells such words letter by letter, and its embedding of the caption is meaningless.
        """
        if self._words is None:
            return []
        found = (word for word in re.findall(r"\w+", text.lower()) if word not in self._words)
        return list(dict.fromkeys(found))

    @torch.no_grad()
    def embed_images(
        self, images: Sequence[UInt8[np.ndarray, "height width 3"]]
    ) -> Float[np.ndarray, "images size"]:
        """Unit vectors of RGB images of any sizes, prepared (scaled, cropped, normalised) as the model's own files say."""
        rows = [np.zeros((0, self.size), np.float32)]
        for start in range(0, len(images), self.batch):
            part = [np.ascontiguousarray(image) for image in images[start : start + self.batch]]
            pixels = self._processor(images=part, return_tensors="pt", input_data_format="channels_last")
            # The two halves by hand: what `get_image_features` returns differs between versions of transformers.
            pooled = self._network.vision_model(pixels["pixel_values"].to(self._device)).pooler_output
            rows.append(_unit(self._network.visual_projection(pooled)))
        return np.concatenate(rows)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "texts size"]:
        """Unit vectors of captions; longer ones are cut at the model's limit."""
        limit = int(self._network.config.text_config.max_position_embeddings)
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(self._device)
        pooled = self._network.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        return _unit(self._network.text_projection(pooled))


def _unit(rows: Float[Tensor, "rows size"]) -> Float[np.ndarray, "rows size"]:
    return torch.nn.functional.normalize(rows.float(), dim=-1).cpu().numpy()
