"""Stage `flow`: the flow-matching editor, a transformer and a Qwen text encoder as in FLUX.2 klein."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import Flux2KleinPipeline
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Qwen2TokenizerFast

from tools.data.demo_editor.models import instruction_words
from tools.data.demo_editor.samples import Levels
from tools.data.demo_editor.settings import Settings, Workspace
from tools.data.demo_editor.training import Phase, Phases, Recipe
from tools.data.demo_editor.transformer import (
    keep_passage,
    make_qwen,
    make_transformer,
    prompt_layers,
    write_qwen_tokenizer,
)

PHASES = Phases((
    Phase(0.4, crop=0.625, batch=2.0, open_share=0.1, further_share=0.45, rate=(1.0, 0.8)),
    Phase(0.8, crop=0.75, batch=1.5, open_share=0.15, further_share=0.45, rate=(0.8, 0.3)),
    Phase(0.9, crop=0.75, batch=1.5, open_share=0.85, further_share=0.1, rate=(0.5, 0.35)),
    Phase(1.0, crop=0.875, batch=1.25, open_share=0.2, further_share=0.45, rate=(0.35, 0.01)),
))  # fmt: skip
"""Crops of the head first, three times as fast as whole pictures; then larger ones. Then what the noise decides above all, and then
nearly whole pictures, as the editor will see them."""
WARM_PHASES = Phases((
    Phase(0.2, crop=0.75, batch=1.5, open_share=0.12, further_share=0.6, rate=(0.5, 0.5)),
    Phase(0.6, crop=0.75, batch=1.5, open_share=0.12, further_share=0.6, rate=(0.5, 0.4)),
    Phase(1.0, crop=0.875, batch=1.25, open_share=0.12, further_share=0.5, rate=(0.4, 0.01)),
))  # fmt: skip
"""The known edits are kept in practice, and the rest is for what is new. Scenes that were rendered meanwhile join in between."""


class FlowEditor(nn.Module):
    """Transformer and text encoder, trained together."""

    def __init__(self, tokenizer: Qwen2TokenizerFast, settings: Settings) -> None:
        super().__init__()
        self.transformer = make_transformer(settings)
        self.text = make_qwen(tokenizer, settings)
        self._pad, self._layers = tokenizer.pad_token_id, prompt_layers(settings)
        keep_passage(self.transformer)

    def forward(self, noisy: Tensor, condition: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        """Predicted clean latents (B, C, h, w); timesteps from 0 to 999 are the noise levels 0.001 to 1."""
        states = self.text.model(
            tokens, attention_mask=(tokens != self._pad).long(), output_hidden_states=True, use_cache=False
        ).hidden_states
        words = torch.cat([states[layer] for layer in self._layers], dim=-1)
        level = (timestep + 1) / 1000
        images = [_tokens(latents) for latents in (noisy, condition)]
        size = (noisy.shape[-2] // 2, noisy.shape[-1] // 2)
        velocity = self.transformer(
            hidden_states=torch.cat(images, dim=1),
            timestep=level,
            guidance=None,
            encoder_hidden_states=words,
            txt_ids=Flux2KleinPipeline._prepare_text_ids(words),
            img_ids=_image_ids(*size)[None].expand(len(noisy), -1, -1),
            return_dict=False,
        )[0][:, : images[0].shape[1]]
        clean = images[0] - level[:, None, None] * velocity.float()
        return F.pixel_shuffle(clean.mT.unflatten(2, size), 2)


def _tokens(latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n four_c"]:
    return F.pixel_unshuffle(latents, 2).flatten(2).mT


def _image_ids(rows: int, columns: int) -> Float[Tensor, "n 4"]:
    """Numbers of image, row, column and word of the tokens of result and original."""
    axes = (torch.tensor([0, 10]), torch.arange(rows), torch.arange(columns), torch.arange(1))
    return torch.cartesian_prod(*axes)


def make(work: Workspace, settings: Settings) -> tuple[Qwen2TokenizerFast, FlowEditor]:
    """The tokenizer and an untrained editor."""
    tokenizer = write_qwen_tokenizer(work.tokenizer, instruction_words(), settings.max_tokens)
    return tokenizer, FlowEditor(tokenizer, settings)


def levels() -> Levels:
    """Of flow matching: straight from the picture to the noise."""
    level = torch.arange(1, 1001) / 1000
    return Levels(1 - level, level)


RECIPE = Recipe(
    "flow",
    make,
    PHASES,
    WARM_PHASES,
    levels,
    outer=lambda settings: ("context_embedder", "embed_tokens"),
    muon_rate=0.0025,
    adam_rate=1e-3,
    guided=False,
    decided_below=970,
    shares=(0.23, 0.13, 0.15, 0.2, 0.15, 0.14),
)
