"""Stage `train`: pictures and captions to one space, so that true captions lie near and false ones far.

The loss is SigLIP's (Zhai et al., "Sigmoid loss for language image pre-training", ICCV 2023): every pair of a picture and a
caption of the batch is true or false by itself, which suits captions that are true of many pictures. Nothing of CLIP-S or
CLIP-C is trained on.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer

from tools.data.demo_clip.captions import draw_caption, truth_table
from tools.data.demo_clip.data import load, shards
from tools.data.demo_clip.model import augmented, embed_captions, embed_pictures, make_clip, make_tokenizer
from tools.data.demo_clip.settings import Settings, Workspace
from tools.data.demo_editor.optimizer import Optimizer
from tools.data.demo_editor.state import Average, Clock, load_state, save_state
from tools.data.demo_editor.team import Team

MUON_RATE, ADAM_RATE = 0.012, 1.5e-3
WARM_UP, COOL_DOWN = 200, 0.35
"""Steps in which the rates rise, and the last share of the budget in which they fall."""
START_BIAS, START_SCALE = -3.0, math.log(10.0)
_OUTER = ("embedding", "projection", "logit_scale", "bias")


class Trainee(nn.Module):
    """The CLIP and SigLIP's bias, which is not exported: it does not change which caption is nearest."""

    def __init__(self, model: CLIPModel):
        super().__init__()
        self.model = model
        self.bias = nn.Parameter(torch.tensor(START_BIAS))
        with torch.no_grad():
            model.logit_scale.fill_(START_SCALE)


def new_trainee(settings: Settings) -> tuple[CLIPTokenizer, Trainee]:
    """The tokenizer, the same in every process, and the untrained CLIP."""
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # of its own: nobody reads half of what another process writes
        tokenizer = make_tokenizer(Path(folder), settings)
    return tokenizer, Trainee(make_clip(tokenizer, settings)).train()


def sigmoid_loss(
    pictures: Float[Tensor, "pictures size"],
    captions: Float[Tensor, "captions size"],
    true: Bool[Tensor, "pictures captions"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """SigLIP, equation 1: - sum over pairs of log sigmoid(z (t x.y + b)) / pictures, z = 1 where the caption is true, else -1."""
    logits = scale.clamp(max=math.log(100.0)).exp() * pictures @ captions.T + bias
    signs = torch.where(true, 1.0, -1.0)
    return -F.logsigmoid(signs * logits).sum() / len(pictures)


def train(work: Workspace, settings: Settings, minutes: float, most: int, team: Team) -> None:
    """Train until the budget of minutes (counted over all runs) is spent, or `most` steps are done; goes on where it was."""
    torch.manual_seed(0)
    tokenizer, trainee = new_trainee(settings)
    optimizer = Optimizer(trainee, outer=_OUTER)
    average, step, spent = Average(trainee, 0.998), 0, 0.0
    if state := load_state(work.state):
        trainee.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        step, spent = state["step"], state["spent"]
    clock = Clock(minutes, spent)
    rng = np.random.default_rng([2, step, team.rank])
    generator = torch.Generator().manual_seed(1000 * step + team.rank)
    images, facts = load(shards(work.train_shards)[team.rank :: team.size] or shards(work.train_shards))
    losses: list[float] = []

    def save() -> None:
        parts = {
            "model": trainee.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average.state_dict(),
        }
        save_state(work.state, {**parts, "step": step, "spent": clock.spent})

    spent = team.agree(clock.spent)
    while spent < clock.budget and step < most:
        chosen = rng.choice(len(images), min(settings.batch, len(images)), replace=False)
        captions = [draw_caption(facts[i], rng) for i in chosen]
        true = torch.from_numpy(truth_table(captions, [facts[i] for i in chosen]))
        with torch.autocast("cpu", torch.bfloat16):
            pictures = embed_pictures(trainee.model, augmented(images[chosen], settings, generator))
            texts = embed_captions(trainee.model, tokenizer, [caption.text for caption in captions])
        loss = sigmoid_loss(pictures.float(), texts.float(), true, trainee.model.logit_scale, trainee.bias)
        loss.backward()
        spent = team.average_gradients(trainee.parameters(), clock.spent)
        nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        rate = learning_rate(step, max(spent / clock.budget, step / most))
        optimizer.step(rate * MUON_RATE, rate * ADAM_RATE)
        average.update(trainee)
        losses.append(float(loss.detach()))
        step += 1
        if team.rank == 0:
            if step % 100 == 0:
                print(f"train: step {step} {spent:.0f} s loss {np.mean(losses[-100:]):.3f}", flush=True)
            if clock.save_due():
                save()
    if team.rank == 0:
        save()
        print(f"train: {step} steps, {spent:.0f} s", flush=True)


def learning_rate(step: int, progress: float) -> float:
    """Of the full rates: a short rise, then flat, then a straight fall to zero at the end of the budget."""
    return min(1.0, (step + 1) / WARM_UP, max(0.0, 1.0 - progress) / COOL_DOWN)


def load_trained(work: Workspace, settings: Settings) -> tuple[CLIPTokenizer, CLIPModel]:
    """The averaged weights, in evaluation mode.

    Raises:
        FileNotFoundError: nothing was trained yet.
    """
    state = load_state(work.state)
    if not state:
        raise FileNotFoundError(f"{work.state}: no trained CLIP. Run the `train` stage first.")
    tokenizer, trainee = new_trainee(settings)
    average = Average(trainee, 0.0)
    average.load_state_dict(state["average"])
    average.copy_to(trainee)
    return tokenizer, trainee.model.eval()
