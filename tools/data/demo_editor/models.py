"""The demo editor's parts in diffusers' own classes: tokenizer, text encoder, VAE, UNet, scheduler.

The UNet predicts the clean edited latents ("sample" prediction). Training pairs are nearly deterministic, so
that prediction is the same function at every noise level, and every training sample teaches all of them. For the
same reason `start_as_copy` lets the untrained UNet return the image condition: it only learns the change.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

from tools.data.demo_editor.passthrough import PatchBasis, place_pairs, write_encoder
from tools.data.demo_editor.settings import Settings

COMMON_WORDS = """
a an the and or of to in on at with without into from for as like it its is are be been was were this
that these those he she they him her them his hers their person people man woman boy girl child face head
skin hair lips mouth eye eyes nose ear ears brow brows eyebrows eyelids cheek cheeks chin neck beard
teeth tongue make turn give put paint dye color colour change let add remove wear wearing look looks
looking more less very much bit slightly strongly please what if had has have would could should red
green blue yellow orange purple pink white black brown grey gray blond blonde golden gold silver bronze
copper metal stone marble wood statue sculpture bust vampire zombie elf alien clown robot ghost monster
old older young younger elderly age aged years wrinkles pale dark light bright makeup make-up lipstick
shadow mascara blush portrait photo picture painting drawing cartoon style smile smiling angry happy sad
surprised tan tanned freckles scar tattoo glasses hat bald long short curly straight i you we me my your
our not no one two ten twenty forty fifty by up down out over under all some any both same different van
gogh comic hero joker hulk avatar king queen soldier winter summer night day sun snow fire water
"""
"""Words the tokenizer holds whole besides those of the instructions."""


def instruction_words() -> list[str]:
    """All words the tokenizer holds whole: those of the instructions and some common ones."""
    from edit3dgs_ns.synthetic.edits import EDITS, OPEN_EDITS
    from tools.data.demo_editor.further import FURTHER

    edits: list[Any] = [*EDITS.values(), *OPEN_EDITS.values(), *FURTHER.values()]
    words = [
        word for edit in edits for text in edit.instructions for word in text.lower().strip("?.!").split()
    ]
    return sorted({piece for word in [*words, *COMMON_WORDS.split()] for piece in word.split("-") if piece})


def write_tokenizer(folder: Path, words: list[str], max_tokens: int) -> CLIPTokenizer:
    """A CLIP tokenizer (byte-pair encoding over all bytes) whose merges make each of the given words one token."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = learn_merges([[*word[:-1], word[-1] + "</w>"] for word in words])
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *dict.fromkeys(a + b for a, b in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(
        json.dumps({token: index for index, token in enumerate(tokens)}, ensure_ascii=False)
    )
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(f"{a} {b}" for a, b in merges) + "\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=max_tokens
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def learn_merges(words: list[list[str]]) -> list[tuple[str, str]]:
    """Byte-pair encoding until every word is one token; ties go to the pair that sorts first, so it is deterministic."""
    split = words
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for pieces in split for pair in pairwise(pieces))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = [_merge(pieces, best) for pieces in split]


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def make_text_encoder(tokenizer: CLIPTokenizer, settings: Settings) -> CLIPTextModel:
    """A small CLIP text transformer, trained together with the UNet."""
    width = settings.text_width
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=settings.text_layers,
            num_attention_heads=4,
            max_position_embeddings=settings.max_tokens,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_vae(settings: Settings, basis: PatchBasis) -> AutoencoderKL | AutoencoderKLFlux2:
    """An autoencoder whose encoder is exactly `basis`; its decoder is to be trained.

    The latents have unit variance by themselves (scaling factor 1, and batch norm statistics 0 and 1): InstructPix2Pix does
    not scale the latents of its image condition, and so both kinds agree.
    """
    levels = len(settings.vae_channels)
    options: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": settings.vae_channels,
        "layers_per_block": 1,
        "latent_channels": settings.latent_channels,
        "norm_num_groups": settings.vae_groups,
        "sample_size": settings.resolution,
        "mid_block_add_attention": False,
        "force_upcast": False,
    }
    vae = (
        AutoencoderKLFlux2(decoder_block_out_channels=settings.decoder_channels, **options)
        if settings.is_flow
        else AutoencoderKL(scaling_factor=1.0, **options)
    )
    with torch.no_grad():
        for module in vae.decoder.modules():
            if module.__class__.__name__ == "ResnetBlock2D":
                module.conv2.weight.mul_(0.1)
    write_encoder(vae, basis)
    return vae


def make_unet(settings: Settings) -> UNet2DConditionModel:
    """Self- and cross-attention on the coarser levels; starts as the identity on the image condition."""
    attention = settings.unet_attention
    unet = UNet2DConditionModel(
        sample_size=settings.latent_size,
        in_channels=2 * settings.latent_channels,
        out_channels=settings.latent_channels,
        block_out_channels=settings.unet_channels,
        layers_per_block=1,
        norm_num_groups=settings.unet_groups,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        # diffusers reads `attention_head_dim` as the number of heads in this class.
        attention_head_dim=settings.unet_heads,
        cross_attention_dim=settings.text_width,
    )
    start_as_copy(unet)
    return unet


@torch.no_grad()
def start_as_copy(unet: UNet2DConditionModel, tamer: float = 64.0) -> None:
    """Set the weights so that the output is the image condition, whatever noise, time and text are.

    All residual branches start at zero. The condition travels as pairs (`passthrough.py`) through conv_in, the
    outermost skip connection and the last shortcut.
    """
    for module in unet.modules():
        if module.__class__.__name__ == "ResnetBlock2D":
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
        elif module.__class__.__name__ == "Transformer2DModel":
            nn.init.zeros_(module.proj_out.weight)
            nn.init.zeros_(module.proj_out.bias)
    c, width = unet.config.out_channels, unet.config.block_out_channels[0]
    last = unet.up_blocks[-1].resnets[-1]
    hidden = last.in_channels - width
    pairs = place_pairs(c, width, unet.config.norm_num_groups)
    for z, (plus, minus) in enumerate(pairs.channels):
        for sign, channel in ((1.0, plus), (-1.0, minus)):
            unet.conv_in.weight[channel] = 0.0
            unet.conv_in.bias[channel] = 0.0
            unet.conv_in.weight[channel, c + z, 1, 1] = sign
    last.conv_shortcut.weight.zero_()
    last.conv_shortcut.bias.zero_()
    for channel in (channel for pair in pairs.channels for channel in pair):
        last.conv_shortcut.weight[channel, hidden + channel] = 1.0
    pairs.raise_tamers(last.conv_shortcut.bias, tamer)
    pairs.read_out(unet.conv_norm_out, unet.conv_out, tamer)


def make_scheduler() -> DDIMScheduler:
    """DDIM with zero terminal SNR (Lin et al., "Common diffusion noise schedules ... are flawed", 2024)."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=True,
        prediction_type="sample",
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        steps_offset=0,
        clip_sample=False,
    )
