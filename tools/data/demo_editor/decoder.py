"""Stage `decoder`: fine-tunes the VAE's decoder on what the trained network predicts; the latents stay.

For deterministic pairs one prediction from pure noise is nearly what the sampler ends at; half of each batch are
true latents, so that unedited pictures still come back unchanged.
"""

from __future__ import annotations

import numpy as np
import torch

from tools.data.demo_editor.data import load_images, shards
from tools.data.demo_editor.optimizer import Optimizer
from tools.data.demo_editor.samples import tokenize_instructions
from tools.data.demo_editor.settings import EDIT_ORDER, Settings, Workspace
from tools.data.demo_editor.state import Average, Clock, load_state, save_state
from tools.data.demo_editor.training import load_editor, recipe_for
from tools.data.demo_editor.vae import (
    PICTURE_NOISE,
    decoder_of,
    learning_rate,
    load_basis,
    load_vae,
    picture_loss,
    to_tensor,
)

MUON_RATE, ADAM_RATE = 0.002, 4e-4


def polish(work: Workspace, settings: Settings, minutes: float) -> None:
    """Train the decoder within the budget (counted over all runs)."""
    vae = load_vae(work, settings)
    tokenizer, editor = load_editor(work, settings, recipe_for(settings))
    tokens = tokenize_instructions(tokenizer)
    state = load_state(work.vae_state)
    assert state is not None
    clock = Clock(minutes, state.get("polished", 0.0))
    parts, basis = decoder_of(vae), load_basis(work, settings)
    noise = PICTURE_NOISE * torch.from_numpy(basis.projection).norm(dim=1)[:, None, None]
    optimizer = Optimizer(parts, outer=("conv_out",))
    average, rng, step = Average(parts, 0.99), np.random.default_rng([3, int(clock.spent)]), 0
    paths = shards(work.train_shards)
    images = load_images(paths[-(400 // settings.scenes_per_shard) :])

    def save() -> None:
        # The next run of this stage starts from the average, so that is both.
        polished = {"decoder": average.shadow, "average": average.state_dict(), "polished": clock.spent}
        save_state(work.vae_state, {**state, **polished})

    while clock.progress < 1.0:
        scene, edit = images[rng.integers(len(images))], int(rng.integers(len(EDIT_ORDER)))
        pictures = to_tensor(scene[[0, edit + 1, int(rng.integers(7))]])
        wording = tokens[edit][rng.integers(len(tokens[edit]))][None]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            true = basis.encode(pictures)
            predicted = editor(torch.randn_like(true[:1]), true[:1], torch.tensor([999]), wording)
        latents = torch.cat([predicted, true[2:] + noise * torch.randn_like(true[2:])]).float()
        rate = learning_rate(step, clock.progress)
        with torch.autocast("cpu", torch.bfloat16):
            output = vae.decode(latents).sample
        loss = picture_loss(output.float(), pictures[1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step(rate * MUON_RATE, rate * ADAM_RATE)
        average.update(parts)
        step += 1
        if step % 50 == 0:
            print(f"decoder: step {step} {clock.spent:.0f}s loss {loss.item():.5f}", flush=True)
        if clock.save_due():
            save()
    save()
