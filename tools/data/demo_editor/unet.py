"""Stage `unet`: the InstructPix2Pix, a UNet and a CLIP text encoder."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from tools.data.demo_editor.looking import let_look
from tools.data.demo_editor.models import (
    instruction_words,
    make_scheduler,
    make_text_encoder,
    make_unet,
    write_tokenizer,
)
from tools.data.demo_editor.samples import Levels
from tools.data.demo_editor.settings import Settings, Workspace
from tools.data.demo_editor.training import Phase, Phases, Recipe

PHASES = Phases((
    Phase(0.25, shrink=2, batch=3.0, further_share=0.45, rate=(1.0, 0.64)),
    Phase(0.37, crop=0.625, batch=1.5, further_share=0.45, rate=(0.64, 0.34)),
    Phase(0.51, crop=0.375, batch=4.0, further_share=0.3, rate=(0.34, 0.06)),
    Phase(0.61, further_share=0.4, rate=(0.06, 0.02)),
    Phase(0.66, shrink=2, batch=3.0, open_share=0.75, further_share=0.1, rate=(0.5, 0.45), push=(0.3, 0.1)),
    Phase(0.72, shrink=2, batch=3.0, open_share=0.6, further_share=0.2, rate=(0.45, 0.25), push=(0.1, 0.0)),
    Phase(0.82, batch=1.5, open_share=0.4, further_share=0.3, rate=(0.25, 0.02)),
    Phase(0.93, crop=0.375, batch=4.0, open_share=0.15, further_share=0.3, rate=(0.3, 0.06)),
    Phase(1.0, batch=1.5, open_share=0.3, further_share=0.4, rate=(0.25, 0.01)),
))  # fmt: skip
"""Small pictures first, four times as fast: what is hair, what is skin, and which word asks for which colour does not
depend on the size. Then crops around the head, and around the face, where the lines are; then the whole picture, as
the editor will see it. After that what the noise decides, and views that look at each other: again small first. It costs
the lines of the face, which are learnt once more; and these cost the clothes and the hair, which crops of faces hardly
show, so that the last phase begins at a high rate."""

WARM_PHASES = Phases((
    Phase(0.5, shrink=2, batch=3.0, open_share=0.1, further_share=0.6, rate=(0.5, 0.4)),
    Phase(0.8, batch=1.5, open_share=0.15, further_share=0.5, rate=(0.3, 0.15)),
    Phase(0.9, crop=0.375, batch=4.0, open_share=0.1, further_share=0.4, rate=(0.2, 0.06)),
    Phase(1.0, batch=1.5, open_share=0.2, further_share=0.45, rate=(0.15, 0.01)),
))  # fmt: skip
"""Small again first: which word asks for which part and colour. Then the lines of the face, which that costs."""


class Editor(nn.Module):
    """UNet and text encoder, trained together."""

    def __init__(self, tokenizer: CLIPTokenizer, settings: Settings) -> None:
        super().__init__()
        self.unet: UNet2DConditionModel = make_unet(settings)
        self.text: CLIPTextModel = make_text_encoder(tokenizer, settings)

    def forward(self, noisy: Tensor, condition: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        """Predicted clean latents (B, C, h, w)."""
        words = self.text(tokens).last_hidden_state
        return self.unet(torch.cat([noisy, condition], dim=1), timestep, words).sample


def make(work: Workspace, settings: Settings) -> tuple[CLIPTokenizer, Editor]:
    """The tokenizer and an untrained editor."""
    tokenizer = write_tokenizer(work.tokenizer, instruction_words(), settings.max_tokens)
    editor = Editor(tokenizer, settings)
    editor.unet.to(memory_format=torch.channels_last)
    return tokenizer, editor


def levels() -> Levels:
    """Of DDIM's schedule."""
    alphas = make_scheduler().alphas_cumprod
    return Levels(alphas.sqrt(), (1 - alphas).sqrt())


def _outer(settings: Settings) -> tuple[str, ...]:
    # The last shortcut carries the image condition (models.start_as_copy): it belongs to the outermost layers.
    last_shortcut = f"up_blocks.{len(settings.unet_channels) - 1}.resnets.1.conv_shortcut"
    return "conv_in.", "conv_out.", "embedding", last_shortcut


def _looking(editor: Any) -> Any:
    return let_look(editor.unet)


RECIPE = Recipe(
    "unet", make, PHASES, WARM_PHASES, levels, _outer, muon_rate=0.006, adam_rate=1e-3, looking=_looking
)
