"""Trains an editing network and its text encoder on latents of the rendered pairs: the stages `unet` and `flow`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tools.data.demo_editor.data import same_scenes, shards
from tools.data.demo_editor.latents import Scenes, edit_importance
from tools.data.demo_editor.looking import Looking
from tools.data.demo_editor.optimizer import Optimizer
from tools.data.demo_editor.samples import (
    EDIT_SHARES,
    OPENED,
    Batch,
    Draw,
    Levels,
    draw,
    draw_looking,
    tokenize_instructions,
)
from tools.data.demo_editor.settings import EDIT_ORDER, Settings, Workspace
from tools.data.demo_editor.state import Average, Clock, load_state, save_state
from tools.data.demo_editor.team import Team
from tools.data.demo_editor.vae import load_basis

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
        further_share: share of samples with a further edit.
        rate: share of the peak learning rate at the phase's beginning and end; linear between.
        push: how easy to see the noise's choice is made at its beginning and end; see `chance.push`.
    """

    until: float
    shrink: int = 1
    crop: float = 1.0
    batch: float = 1.0
    open_share: float = 0.0
    further_share: float = 0.0
    rate: tuple[float, float] = (1.0, 1.0)
    push: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Phases:
    """The parts of a training, one after the other."""

    parts: tuple[Phase, ...]

    def at(self, progress: float) -> int:
        """Index of the part at a share of the budget in [0, 1]."""
        return next((i for i, part in enumerate(self.parts) if progress < part.until), len(self.parts) - 1)

    def push_at(self, progress: float) -> float:
        """How easy to see the choice is made at a share of the budget."""
        return self._within(progress, lambda phase: phase.push)

    def rate_at(self, step: int, progress: float) -> float:
        """Share of the peak learning rate, after a warm-up over 40 steps."""
        return min(1.0, (step + 1) / 40) * self._within(progress, lambda phase: phase.rate)

    def _within(self, progress: float, ends: Callable[[Phase], tuple[float, float]]) -> float:
        now = self.at(progress)
        begin, end = self.parts[now - 1].until if now else 0.0, self.parts[now].until
        first, last = ends(self.parts[now])
        return first + min((progress - begin) / (end - begin), 1.0) * (last - first)


@dataclass(frozen=True)
class Recipe:
    """How one kind of network is trained.

    Attributes:
        name: of the stage.
        make: the tokenizer, and the untrained network with its text encoder: a module that takes noised latents, the original's
            latents, timesteps from 0 to 999 and token ids, and returns clean latents.
        phases: the parts of the training.
        warm_phases: those of a training that begins with a finished editor's weights.
        levels: the shares of signal and noise at every timestep.
        outer: parts of the names of parameters that Adam takes, not Muon.
        muon_rate: peak learning rate of Muon.
        adam_rate: peak learning rate of Adam.
        looking: installs attention between views; None where views are edited one by one.
        guided: whether text and image are withheld at times, for classifier-free guidance.
        decided_below: see `samples.Draw`.
        shares: of the plain samples by edit, in EDIT_ORDER.
    """

    name: str
    make: Callable[[Workspace, Settings], tuple[Any, nn.Module]]
    phases: Phases
    warm_phases: Phases
    levels: Callable[[], Levels]
    outer: Callable[[Settings], tuple[str, ...]]
    muon_rate: float
    adam_rate: float
    looking: Callable[[nn.Module], Looking] | None = None
    guided: bool = True
    decided_below: int = 0
    shares: tuple[float, ...] = EDIT_SHARES


class Decided:
    """How well the choice is read off pure noise: 1 perfectly, 0 no better than the mean of all hues."""

    def __init__(self) -> None:
        self._error = self._grey = 0.0

    def add(self, batch: Batch, output: Tensor, weight: Tensor) -> None:
        """Count a batch's open samples at the very top of the schedule."""
        rows = (batch.edit >= len(EDIT_ORDER)) & (batch.edit < OPENED) & (batch.timestep >= 985)
        if rows.any():
            self._error += (weight * (output[rows] - batch.target[rows]).square()).sum().item()
            self._grey += (weight * (batch.grey[rows] - batch.target[rows]).square()).sum().item()

    def read(self) -> float:
        """The figure since the last call."""
        decided = 1.0 - self._error / self._grey if self._grey else 0.0
        self._error = self._grey = 0.0
        return decided


def train_editor(work: Workspace, settings: Settings, minutes: float, recipe: Recipe, team: Team) -> None:
    """Train until the budget (counted over all runs) is spent; scenes rendered meanwhile join in."""
    torch.manual_seed(0)
    basis = load_basis(work, settings)
    tokenizer, editor = recipe.make(work, settings)
    tokens = tokenize_instructions(tokenizer)
    looking = recipe.looking(editor) if recipe.looking else Looking()
    optimizer = Optimizer(editor, outer=recipe.outer(settings))
    average, step, spent, samples, warm = Average(editor, 0.998), 0, 0.0, 0, False
    if state := load_state(work.editor_state):
        editor.load_state_dict(state["editor"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        step, spent, samples = state["step"], state["spent"], state.get("samples", 0)
        warm = state.get("warm", False)
    clock = Clock(minutes, spent)
    torch.manual_seed(1000 * step + team.rank)

    def save() -> None:
        save_state(
            work.editor_state,
            {
                "editor": editor.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict(),
                "step": step,
                "samples": samples,
                "warm": warm,
                "spent": clock.spent,
            },
        )

    weight = torch.from_numpy(basis.weight)[:, None, None]

    def read(phase: Phase) -> Scenes:
        plain = shards(work.train_shards)
        opened = same_scenes(shards(work.open_shards), plain) if phase.open_share else []
        more = same_scenes(shards(work.further_shards), plain) if phase.further_share else []
        return Scenes.read(plain, opened, more, basis, phase.shrink, weight)

    def needs(phase: Phase) -> tuple[int, bool, bool, int]:
        rendered = len(shards(work.train_shards))
        return phase.shrink, phase.open_share > 0, phase.further_share > 0, rendered

    spent = team.agree(clock.spent)
    phases, levels = recipe.warm_phases if warm else recipe.phases, recipe.levels()
    now = phases.at(spent / clock.budget)
    known, scenes = needs(phases.parts[now]), read(phases.parts[now])
    importance = edit_importance(scenes, weight)
    rng, losses, decided = np.random.default_rng([2, step, team.rank]), [], Decided()
    while spent < clock.budget:
        progress = spent / clock.budget
        if (phase := phases.at(progress)) != now:
            now = phase
            if (wanted := needs(phases.parts[now])) != known:
                known = wanted
                scenes = read(phases.parts[now])
                importance = edit_importance(scenes, weight)
        part = phases.parts[now]
        # A multiple of four: the UNet halves the latents twice.
        side = max(4, round(part.crop * scenes.plain.shape[-1] / 4) * 4)
        now_looking = draw_looking(
            np.random.default_rng([3, step]), part.open_share if recipe.looking else 0.0
        )
        looking.views, looking.sources = now_looking.views, now_looking.sources
        options = Draw(
            round(settings.unet_batch * part.batch),
            side,
            part.open_share,
            part.further_share,
            phases.push_at(progress),
            recipe.guided,
            recipe.decided_below,
            recipe.shares,
        )
        batch = draw(scenes, tokens, levels, rng, options, now_looking)
        rate = phases.rate_at(step, progress)
        with torch.autocast("cpu", torch.bfloat16):
            output = editor(batch.noisy, batch.condition, batch.timestep, batch.tokens).float()
        errors = (weight * (output - batch.target).square()).mean(dim=1)
        errors = (errors * (1.0 + (SKIN_WEIGHT - 1.0) * batch.skin)).mean(dim=(1, 2))
        loss = (importance[batch.edit] * errors).mean()
        loss.backward()
        spent = team.average_gradients(editor.parameters(), clock.spent)
        torch.nn.utils.clip_grad_norm_(editor.parameters(), 1.0)
        optimizer.step(rate * recipe.muon_rate, rate * recipe.adam_rate)
        average.update(editor)
        decided.add(batch, output.detach(), weight)
        samples += team.size * len(batch.target)
        losses.append(loss.item())
        step += 1
        if step % 25 == 0 and team.rank == 0:
            recent = f"loss {np.mean(losses[-25:]):.4f} median {np.median(losses[-25:]):.4f}"
            seen = f"{samples} samples of {len(scenes.plain)} scenes"
            print(
                f"{recipe.name}: step {step} {spent:.0f}s {recent} decided {decided.read():.2f} {seen}",
                flush=True,
            )
        if team.rank == 0 and clock.save_due():
            save()
    if team.rank == 0:
        save()
        print(f"{recipe.name}: {step} steps, {samples} samples, {spent:.0f} s", flush=True)


def load_editor(work: Workspace, settings: Settings, recipe: Recipe) -> tuple[Any, nn.Module]:
    """The tokenizer, and the averaged network and text encoder of a run, in evaluation mode."""
    state = load_state(work.editor_state)
    if not state:
        raise FileNotFoundError(
            f"{work.editor_state}: no trained network. Run the `{recipe.name}` stage first."
        )
    tokenizer, editor = recipe.make(work, settings)
    average = Average(copy.deepcopy(editor), 0.0)
    average.load_state_dict(state["average"])
    average.copy_to(editor)
    return tokenizer, editor.eval()


def recipe_for(settings: Settings) -> Recipe:
    """How the network of these sizes is trained."""
    from tools.data.demo_editor import flow, unet

    return flow.RECIPE if settings.is_flow else unet.RECIPE
