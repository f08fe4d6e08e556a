"""Stage `unet`: trains UNet and text encoder on latents of the rendered pairs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from tools.data.demo_editor.data import shards
from tools.data.demo_editor.latents import Scenes, edit_importance
from tools.data.demo_editor.looking import let_look
from tools.data.demo_editor.models import (
    instruction_words,
    make_scheduler,
    make_text_encoder,
    make_unet,
    write_tokenizer,
)
from tools.data.demo_editor.optimizer import Optimizer
from tools.data.demo_editor.samples import Batch, Draw, draw, draw_looking, tokenize_instructions
from tools.data.demo_editor.settings import EDIT_ORDER, Settings, Workspace
from tools.data.demo_editor.state import Average, Clock, load_state, save_state
from tools.data.demo_editor.team import Team
from tools.data.demo_editor.vae import load_basis

MUON_RATE, ADAM_RATE = 0.006, 1e-3
SKIN_WEIGHT = 5.0
"""How much more an error on the skin counts than one elsewhere: the glitter of hair, which nobody misses, is most of
the squared error, and the lines of a face, which everybody sees, are little of it."""


@dataclass(frozen=True)
class Phase:
    """A part of the training.

    Attributes:
        until: share of the time budget at which it ends.
        shrink: the pictures are made smaller by this factor.
        crop: side of the crops, as a share of the picture's side.
        batch: samples per batch, in units of `Settings.unet_batch`.
        open_share: share of samples with an open edit.
        rate: share of the peak learning rate at the phase's beginning and end; linear between.
        push: how easy to see the noise's choice is made at its beginning and end; see `chance.push`.
    """

    until: float
    shrink: int = 1
    crop: float = 1.0
    batch: float = 1.0
    open_share: float = 0.0
    rate: tuple[float, float] = (1.0, 1.0)
    push: tuple[float, float] = (0.0, 0.0)


PHASES = (
    Phase(0.25, shrink=2, batch=3.0, rate=(1.0, 0.64)),
    Phase(0.37, crop=0.625, batch=1.5, rate=(0.64, 0.34)),
    Phase(0.51, crop=0.375, batch=4.0, rate=(0.34, 0.06)),
    Phase(0.61, rate=(0.06, 0.02)),
    Phase(0.66, shrink=2, batch=3.0, open_share=0.75, rate=(0.5, 0.45), push=(0.3, 0.1)),
    Phase(0.72, shrink=2, batch=3.0, open_share=0.6, rate=(0.45, 0.25), push=(0.1, 0.0)),
    Phase(0.82, batch=1.5, open_share=0.4, rate=(0.25, 0.02)),
    Phase(0.93, crop=0.375, batch=4.0, open_share=0.15, rate=(0.3, 0.06)),
    Phase(1.0, batch=1.5, open_share=0.35, rate=(0.25, 0.01)),
)
"""Small pictures first, four times as fast: what is hair, what is skin, and which word asks for which colour does not
depend on the size. Then crops around the head, and around the face, where the lines are; then the whole picture, as
the editor will see it. After that what the noise decides, and views that look at each other: again small first. It costs
the lines of the face, which are learnt once more; and these cost the clothes and the hair, which crops of faces hardly
show, so that the last phase begins at a high rate."""


def phase_at(progress: float) -> int:
    """Index into PHASES at a share of the budget in [0, 1]."""
    return next((i for i, phase in enumerate(PHASES) if progress < phase.until), len(PHASES) - 1)


def push_at(progress: float) -> float:
    """How easy to see the choice is made at a share of the budget."""
    return _within(progress, lambda phase: phase.push)


def rate_at(step: int, progress: float) -> float:
    """Share of the peak learning rate, after a warm-up over 40 steps."""
    return min(1.0, (step + 1) / 40) * _within(progress, lambda phase: phase.rate)


def _within(progress: float, ends: Callable[[Phase], tuple[float, float]]) -> float:
    now = phase_at(progress)
    begin, end = PHASES[now - 1].until if now else 0.0, PHASES[now].until
    first, last = ends(PHASES[now])
    return first + min((progress - begin) / (end - begin), 1.0) * (last - first)


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


class Decided:
    """How well the choice is read off pure noise: 1 perfectly, 0 no better than the mean of all hues."""

    def __init__(self) -> None:
        self._error = self._grey = 0.0

    def add(self, batch: Batch, output: Tensor, weight: Tensor) -> None:
        """Count a batch's open samples at the very top of the schedule."""
        rows = (batch.edit >= len(EDIT_ORDER)) & (batch.timestep >= 985)
        if rows.any():
            self._error += (weight * (output[rows] - batch.target[rows]).square()).sum().item()
            self._grey += (weight * (batch.grey[rows] - batch.target[rows]).square()).sum().item()

    def read(self) -> float:
        """The figure since the last call."""
        decided = 1.0 - self._error / self._grey if self._grey else 0.0
        self._error = self._grey = 0.0
        return decided


def train_unet(work: Workspace, settings: Settings, minutes: float, team: Team) -> None:
    """Train until the budget (counted over all runs) is spent; scenes rendered meanwhile join in."""
    torch.manual_seed(0)
    basis = load_basis(work, settings)
    tokenizer = write_tokenizer(work.root / "tokenizer", instruction_words(), settings.max_tokens)
    tokens = tokenize_instructions(tokenizer)
    editor = Editor(tokenizer, settings)
    editor.unet.to(memory_format=torch.channels_last)
    looking = let_look(editor.unet)
    last_shortcut = f"up_blocks.{len(settings.unet_channels) - 1}.resnets.1.conv_shortcut"
    # The last shortcut carries the image condition (models.start_as_copy): it belongs to the outermost layers.
    optimizer = Optimizer(editor, outer=("conv_in.", "conv_out.", "embedding", last_shortcut))
    average, step, spent, samples = Average(editor, 0.998), 0, 0.0, 0
    if state := load_state(work.unet_state):
        editor.load_state_dict(state["editor"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        step, spent, samples = state["step"], state["spent"], state.get("samples", 0)
    clock = Clock(minutes, spent)
    torch.manual_seed(1000 * step + team.rank)

    def save() -> None:
        save_state(
            work.unet_state,
            {
                "editor": editor.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict(),
                "step": step,
                "samples": samples,
                "spent": clock.spent,
            },
        )

    weight = torch.from_numpy(basis.weight)[:, None, None]

    def read(phase: Phase) -> Scenes:
        opened = shards(work.open_shards) if phase.open_share else []
        return Scenes.read(shards(work.train_shards), opened, basis, phase.shrink, weight)

    spent = team.agree(clock.spent)
    now = phase_at(spent / clock.budget)
    scenes = read(PHASES[now])
    importance = edit_importance(scenes, weight)
    alphas = make_scheduler().alphas_cumprod
    rng, losses, decided = np.random.default_rng([2, step, team.rank]), [], Decided()
    while spent < clock.budget:
        progress = spent / clock.budget
        if (phase := phase_at(progress)) != now:
            before, now = PHASES[now], phase
            if (before.shrink, before.open_share > 0) != (PHASES[now].shrink, PHASES[now].open_share > 0):
                scenes = read(PHASES[now])
                importance = edit_importance(scenes, weight)
        # A multiple of four: the UNet halves the latents twice.
        side = max(4, round(PHASES[now].crop * scenes.plain.shape[-1] / 4) * 4)
        size, share = round(settings.unet_batch * PHASES[now].batch), PHASES[now].open_share
        now_looking = draw_looking(np.random.default_rng([3, step]), share)
        looking.views, looking.sources = now_looking.views, now_looking.sources
        options = Draw(size, side, share, push_at(progress))
        batch = draw(scenes, tokens, alphas, rng, options, now_looking)
        rate = rate_at(step, progress)
        with torch.autocast("cpu", torch.bfloat16):
            output = editor(batch.noisy, batch.condition, batch.timestep, batch.tokens).float()
        errors = (weight * (output - batch.target).square()).mean(dim=1)
        errors = (errors * (1.0 + (SKIN_WEIGHT - 1.0) * batch.skin)).mean(dim=(1, 2))
        loss = (importance[batch.edit] * errors).mean()
        loss.backward()
        spent = team.average_gradients(editor.parameters(), clock.spent)
        torch.nn.utils.clip_grad_norm_(editor.parameters(), 1.0)
        optimizer.step(rate * MUON_RATE, rate * ADAM_RATE)
        average.update(editor)
        decided.add(batch, output.detach(), weight)
        samples += team.size * len(batch.target)
        losses.append(loss.item())
        step += 1
        if step % 25 == 0 and team.rank == 0:
            recent = f"loss {np.mean(losses[-25:]):.4f} median {np.median(losses[-25:]):.4f}"
            seen = f"{samples} samples of {len(scenes.plain)} scenes"
            print(f"unet: step {step} {spent:.0f}s {recent} decided {decided.read():.2f} {seen}", flush=True)
        if team.rank == 0 and clock.save_due():
            save()
    if team.rank == 0:
        save()
        print(f"unet: {step} steps, {samples} samples, {spent:.0f} s", flush=True)


def load_editor(work: Workspace, settings: Settings) -> tuple[CLIPTokenizer, Editor]:
    """The averaged UNet and text encoder of a run, in evaluation mode."""
    state = load_state(work.unet_state)
    if not state:
        raise FileNotFoundError(f"{work.unet_state}: no trained UNet. Run the `unet` stage first.")
    tokenizer = write_tokenizer(work.root / "tokenizer", instruction_words(), settings.max_tokens)
    editor = Editor(tokenizer, settings)
    average = Average(copy.deepcopy(editor), 0.0)
    average.load_state_dict(state["average"])
    average.copy_to(editor)
    return tokenizer, editor.eval()
