"""Begins a training with the weights of a finished editor: a new vocabulary's words get new embeddings, all else is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from jaxtyping import Float
from torch import Tensor, nn

from tools.data.demo_editor.data import save_npz
from tools.data.demo_editor.optimizer import Optimizer
from tools.data.demo_editor.passthrough import PatchBasis
from tools.data.demo_editor.settings import Settings, Workspace
from tools.data.demo_editor.state import Average, save_state
from tools.data.demo_editor.training import Recipe
from tools.data.demo_editor.vae import decoder_of


def warm_start(folder: Path, work: Workspace, settings: Settings, recipe: Recipe) -> None:
    """Write the basis and the states of both stages as if the editor in a folder had just been trained for no time.

    States that exist are left alone: a training that began goes on.
    """
    from diffusers import DiffusionPipeline

    if work.editor_state.exists():
        return
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    if not work.basis.exists():
        basis = basis_of(pipeline.vae)
        save_npz(work.basis, projection=basis.projection, mean=basis.mean, weight=basis.weight)
    if not work.vae_state.exists():
        parts = decoder_of(pipeline.vae)
        save_state(work.vae_state, _fresh(parts, ("conv_out",), "decoder"))
    tokenizer, editor = recipe.make(work, settings)
    network = pipeline.transformer if settings.is_flow else pipeline.unet
    (editor.transformer if settings.is_flow else editor.unet).load_state_dict(network.state_dict())
    _load_text(editor.text, pipeline.text_encoder, tokenizer.get_vocab(), pipeline.tokenizer.get_vocab())
    save_state(work.editor_state, _fresh(editor, recipe.outer(settings), "editor") | {"warm": True})


def _fresh(module: nn.Module, outer: tuple[str, ...], name: str) -> dict[str, Any]:
    return {
        name: module.state_dict(),
        "optimizer": Optimizer(module, outer=outer).state_dict(),
        "average": Average(module, 0.0).state_dict(),
        "step": 0,
        "spent": 0.0,
    }


def _load_text(text: nn.Module, before: nn.Module, vocabulary: dict[str, int], known: dict[str, int]) -> None:
    """Load a text encoder; words keep their embeddings wherever their numbers went, and new ones keep what they have."""
    weights, mine = before.state_dict(), text.state_dict()
    for name, value in weights.items():
        if value.shape[0] != len(known) or not ("embed" in name or "lm_head" in name):
            mine[name] = value
            continue
        for word, number in vocabulary.items():
            if word in known:
                mine[name][number] = value[known[word]]
    text.load_state_dict(mine)


@torch.no_grad()
def basis_of(vae: AutoencoderKL | AutoencoderKLFlux2) -> PatchBasis:
    """The projection that an exported autoencoder's encoder is, read off its answers to pictures of one bright number each."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    count = 3 * factor * factor
    patches = torch.eye(count).reshape(count, factor, factor, 3).permute(0, 3, 1, 2)
    # Several patches, of which the first is read: padding reaches over the last.
    pictures = nn.functional.pad(patches, (0, factor, 0, factor))
    blank = vae.encode(torch.zeros_like(pictures[:1])).latent_dist.mode()[:, :, 0, 0]
    latents = torch.cat([vae.encode(some).latent_dist.mode()[:, :, 0, 0] for some in pictures.split(16)])
    return basis_from(latents.double().T - blank.double().T, blank[0].double())


def basis_from(projection: Float[Tensor, "c p"], blank: Float[Tensor, " c"]) -> PatchBasis:
    """The basis with a projection that makes `blank` of zeros."""
    mean = -torch.linalg.pinv(projection) @ blank
    weight = projection.norm(dim=1) ** -2
    arrays = (projection, mean, weight / weight.mean())
    return PatchBasis(*(np.ascontiguousarray(array.numpy(), np.float32) for array in arrays))
