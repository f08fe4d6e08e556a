"""The demo CLIP in transformers' own classes, and what turns pictures and captions into its input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from tools.data.demo_clip.captions import caption_words
from tools.data.demo_clip.settings import Settings
from tools.data.demo_editor.models import COMMON_WORDS, write_tokenizer

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""CLIP's own normalisation."""


def make_tokenizer(folder: Path, settings: Settings) -> CLIPTokenizer:
    """A CLIP tokenizer that holds the captions' words and some common ones whole; it can spell all others."""
    words = {piece for word in COMMON_WORDS.split() for piece in word.split("-") if piece}
    return write_tokenizer(folder, sorted(words | set(caption_words())), settings.max_tokens)


def make_clip(tokenizer: CLIPTokenizer, settings: Settings) -> CLIPModel:
    """The untrained model."""
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.text_width,
        intermediate_size=2 * settings.text_width,
        num_hidden_layers=settings.text_layers,
        num_attention_heads=settings.text_heads,
        max_position_embeddings=settings.max_tokens,
        projection_dim=settings.projection,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=settings.vision_width,
        intermediate_size=3 * settings.vision_width,
        num_hidden_layers=settings.vision_layers,
        num_attention_heads=settings.vision_heads,
        image_size=settings.resolution,
        patch_size=settings.patch,
        projection_dim=settings.projection,
    )
    return CLIPModel(
        CLIPConfig(
            text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=settings.projection
        )
    )


def make_processor(settings: Settings) -> CLIPImageProcessor:
    """How pictures of any size become the vision tower's input."""
    side = settings.resolution
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def embed_pictures(
    model: CLIPModel, pixels: Float[Tensor, "batch 3 side side"]
) -> Float[Tensor, "batch size"]:
    """Unit vectors."""
    return F.normalize(model.visual_projection(model.vision_model(pixels).pooler_output).float(), dim=-1)


def embed_captions(
    model: CLIPModel, tokenizer: CLIPTokenizer, texts: list[str]
) -> Float[Tensor, "texts size"]:
    """Unit vectors."""
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    pooled = model.text_model(
        input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
    ).pooler_output
    return F.normalize(model.text_projection(pooled).float(), dim=-1)


def augmented(
    images: UInt8[np.ndarray, "batch stored stored 3"], settings: Settings, generator: torch.Generator
) -> Float[Tensor, "batch 3 side side"]:
    """Random parts of pictures, mirrored, a little brighter or darker, and often soft, as renders of Gaussians are."""
    count, side = len(images), settings.resolution

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    zoom, flip = uniform(0.80, 1.08), torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = zoom * flip, zoom
    theta[:, :, 2] = uniform(-0.12, 0.12, 2)
    grid = F.affine_grid(theta, [count, 3, side, side], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    soft = F.interpolate(F.avg_pool2d(x, 2), size=(side, side), mode="bilinear", align_corners=False)
    x = torch.lerp(x, soft, uniform(0, 1, 1, 1, 1) * (uniform(0, 1, 1, 1, 1) < 0.6))
    middle = 0.5
    x = (x - middle) * uniform(0.9, 1.1, 1, 1, 1) + middle + uniform(-0.04, 0.04, 1, 1, 1)
    x = x + 0.015 * torch.randn(x.shape, generator=generator) * uniform(0, 1, 1, 1, 1)
    return normalised(x.clamp(0, 1))


def normalised(x: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 3 side side"]:
    """[0, 1] to CLIP's range."""
    return (x - x.new_tensor(MEAN)[:, None, None]) / x.new_tensor(STD)[:, None, None]
