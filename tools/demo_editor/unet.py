"""Stage `unet`: trains UNet and text encoder on latents of the rendered pairs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Bool, Int64
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from .data import load_images, shards
from .models import instruction_words, make_scheduler, make_text_encoder, make_unet, write_tokenizer
from .optimizer import Optimizer
from .passthrough import PatchBasis
from .settings import EDIT_ORDER, Settings, Workspace
from .state import Average, Clock, load_state, save_state
from .team import Team
from .vae import learning_rate, load_basis, to_tensor

MUON_RATE, ADAM_RATE = 0.006, 1e-3
DROP_TEXT, DROP_IMAGE, DROP_BOTH = 0.04, 0.03, 0.03
"""Shares of samples without instruction, without image, without both: for classifier-free guidance."""
STALE = 0.35
"""Share of samples whose noised latents are not those of the true edit but of a mixture with the unedited
picture: an avatar's render in the middle of an edit. The target stays the true edit."""
SOFTENED = 0.3
"""Share of samples whose image condition was blurred and made noisy, as renders of a splat avatar are."""
EDIT_SHARES = (0.7, 0.05, 0.06, 0.07, 0.06, 0.06)
"""Shares of the samples by edit, in EDIT_ORDER: wrinkles are fine detail and take most practice, one flat colour little."""
OLDER_WEIGHT = 4.0
"""How much more the edit "older" counts: its hair changes so much that by the size of the change alone its lines would not."""
SKIN_WEIGHT = 5.0
"""How much more an error on the skin counts than one elsewhere: the glitter of hair, which nobody misses, is most of
the squared error, and the lines of a face, which everybody sees, are little of it."""
REFRESH_SECONDS = 150.0


@dataclass(frozen=True)
class Phase:
    """A part of the training.

    Attributes:
        until: share of the time budget at which it ends.
        shrink: the pictures are made smaller by this factor.
        crop: side of the crops, as a share of the picture's side.
        batch: samples per batch, in units of `Settings.unet_batch`.
    """

    until: float
    shrink: int = 1
    crop: float = 1.0
    batch: float = 1.0


PHASES = (
    Phase(0.40, shrink=2, batch=3.0),
    Phase(0.60, crop=0.625, batch=1.5),
    Phase(0.84, crop=0.375, batch=4.0),
    Phase(1.0),
)
"""Small pictures first, four times as fast: what is hair, what is skin, and which word asks for which colour does not
depend on the size. Then crops around the head, and around the face, where the lines are; last the whole picture, as
the editor will see it."""


def phase_at(progress: float) -> int:
    """Index into PHASES at a share of the budget in [0, 1]."""
    return next((i for i, phase in enumerate(PHASES) if progress < phase.until), len(PHASES) - 1)


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


def soften(images: Tensor, generator: torch.Generator) -> Tensor:
    """Slight blur (sigma 0.4 to 1.1 pixels) and noise, (B, 3, H, W) in [-1, 1]."""
    sigma = 0.4 + 0.7 * torch.rand((), generator=generator)
    x = torch.arange(-3, 4).float()
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).repeat(3, 1, 1)
    blurred = F.conv2d(F.pad(images, (3, 3, 3, 3), mode="replicate"), kernel[:, :, :, None], groups=3)
    blurred = F.conv2d(blurred, kernel[:, :, None, :], groups=3)
    return (
        blurred + 0.03 * torch.rand((), generator=generator) * torch.randn(images.shape, generator=generator)
    ).clamp(-1, 1)


@torch.no_grad()
def encode_shards(paths: list[Path], basis: PatchBasis, shrink: int = 1) -> np.ndarray:
    """Latents of rendered shards, float16 (scenes, 8, C, h, w): original, six edits, softened original.

    Every other scene is mirrored.

    Args:
        shrink: the pictures are made smaller by this factor first.
    """
    scenes = []
    for path in paths:
        generator = torch.Generator().manual_seed(int(path.stem))
        for index, scene in enumerate(load_images([path])):
            pictures = F.avg_pool2d(to_tensor(scene), shrink)
            pictures = torch.cat([pictures, soften(pictures[:1], generator)])
            scenes.append(basis.encode(pictures.flip(-1) if index % 2 else pictures).half())
    return torch.stack(scenes).numpy()


def tokenize_instructions(tokenizer: CLIPTokenizer) -> list[Tensor]:
    """Token ids (wordings, length) per edit in EDIT_ORDER, and last those of the empty text."""
    from edit3dgs_ns.capture.edits import EDITS

    def ids(texts: list[str]) -> Tensor:
        return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids

    out = []
    for key in EDIT_ORDER:
        texts = list(EDITS[key].instructions)
        out.append(ids(texts + [text.rstrip(".?!") + "." for text in texts]))
    return [*out, ids([""])]


def edit_importance(latents: np.ndarray, weight: Tensor) -> Tensor:
    """Weights of the edits in the loss, mean 1: the less an edit changes, the more its errors count.

    Error ratios (dB) matter, and red lips change a fiftieth of what bronze does; the square root keeps the gradients calm.
    """
    some = torch.from_numpy(latents[:100].astype(np.float32))
    change = (weight * (some[:, 1:7] - some[:, :1]).square()).mean(dim=(0, 2, 3, 4))
    importance = change**-0.5
    importance[EDIT_ORDER.index("older")] *= OLDER_WEIGHT
    return importance / importance.mean()


def skin_mask(latents: np.ndarray, weight: Tensor) -> Bool[np.ndarray, "scenes h w"]:
    """Where the edit that paints the skin green changes a scene."""
    green = 1 + EDIT_ORDER.index("green_skin")
    change = (latents[:, green].astype(np.float32) - latents[:, 0]) ** 2
    return (weight.numpy() * change).mean(axis=1) > 0.15


def crop_corners(
    masks: Bool[np.ndarray, "batch h w"], side: int, rng: np.random.Generator
) -> Int64[np.ndarray, "batch 2"]:
    """Top left corners of square crops about the masks' centres, moved at random by up to a sixth of the side."""
    size = np.array(masks.shape[1:])
    corners = []
    for mask in masks:
        places = np.argwhere(mask)
        centre = places.mean(axis=0) if len(places) else size / 2
        if len(places):
            # The neck is skin too: the face is the upper part.
            top, bottom = places[:, 0].min(), places[:, 0].max() + 1
            centre[0] = top + max(0.4 * (bottom - top), min(side, bottom - top) / 2)
        corner = centre - side / 2 + side / 6 * rng.uniform(-1.0, 1.0, 2)
        corners.append(np.clip(np.rint(corner), 0, size - side))
    return np.array(corners, np.int64)


@dataclass
class Batch:
    """One training batch; see `draw`."""

    noisy: Tensor
    condition: Tensor
    timestep: Tensor
    tokens: Tensor
    target: Tensor
    edit: Tensor
    skin: Tensor


def draw(
    latents: np.ndarray,
    skin: Bool[np.ndarray, "scenes h w"],
    tokens: list[Tensor],
    alphas: Tensor,
    rng: np.random.Generator,
    size: int,
    side: int,
) -> Batch:
    """A random batch: scene, edit, wording, noise level, and what is withheld.

    Args:
        alphas: cumulative products of the noise schedule.
        size: samples.
        side: of the crops, in latents; the latents' own side for whole pictures.
    """
    scene, edit = rng.integers(len(latents), size=size), rng.choice(len(EDIT_ORDER), size, p=EDIT_SHARES)
    softened = np.where(rng.random(size) < SOFTENED, 7, 0)
    corners = crop_corners(skin[scene], side, rng)

    def cut(maps: np.ndarray) -> np.ndarray:
        return np.stack([m[..., y : y + side, x : x + side] for m, (y, x) in zip(maps, corners, strict=True)])

    def pick(which: np.ndarray) -> Tensor:
        return torch.from_numpy(cut(latents[scene, which]).astype(np.float32))

    target, original, condition = pick(edit + 1), pick(np.zeros(size, int)), pick(softened)
    stale = torch.from_numpy((rng.random(size) * (rng.random(size) < STALE)).astype(np.float32))[
        :, None, None, None
    ]
    start = torch.lerp(target, original, stale)
    # Even a trace of the edited picture in the noise gives the edit away: the instruction is read at the very top
    # only, and there the sampler's first step decides.
    lowest = np.select([(level := rng.random(size)) < 0.4, level < 0.7], [985, 650], 0)
    timestep = rng.integers(lowest, 1000)
    alpha = alphas[torch.from_numpy(timestep)][:, None, None, None]
    noise = torch.from_numpy(rng.standard_normal(target.shape, np.float32))
    chosen = [tokens[e][rng.integers(len(tokens[e]))] for e in edit]
    fate = rng.random(size)
    for i in range(size):
        if fate[i] < DROP_TEXT + DROP_BOTH:
            chosen[i] = tokens[-1][0]
        if DROP_TEXT <= fate[i] < DROP_TEXT + DROP_BOTH + DROP_IMAGE:
            condition[i] = 0.0
    return Batch(
        alpha.sqrt() * start + (1 - alpha).sqrt() * noise,
        condition,
        torch.from_numpy(timestep),
        torch.stack(chosen),
        target,
        torch.from_numpy(edit),
        torch.from_numpy(cut(skin[scene])),
    )


def train_unet(work: Workspace, settings: Settings, minutes: float, team: Team) -> None:
    """Train until the budget (counted over all runs) is spent; scenes rendered meanwhile join in."""
    torch.manual_seed(0)
    basis = load_basis(work, settings)
    tokenizer = write_tokenizer(work.root / "tokenizer", instruction_words(), settings.max_tokens)
    tokens = tokenize_instructions(tokenizer)
    editor = Editor(tokenizer, settings)
    editor.unet.to(memory_format=torch.channels_last)
    # Plain matrix products: twice as fast as the fused kernel's backward on a CPU.
    editor.unet.set_attn_processor(AttnProcessor())
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
    paths = shards(work.train_shards)
    now = phase_at(spent / clock.budget)
    known, latents = len(paths), encode_shards(paths, basis, PHASES[now].shrink)
    skin = skin_mask(latents, weight)
    spent = team.agree(clock.spent)
    importance = edit_importance(latents, weight)
    alphas = make_scheduler().alphas_cumprod
    rng, refreshed = np.random.default_rng([2, step, team.rank]), spent
    losses: list[float] = []
    while spent < clock.budget:
        if (phase := phase_at(spent / clock.budget)) != now:
            if PHASES[phase].shrink != PHASES[now].shrink:
                paths = shards(work.train_shards)
                known, latents = len(paths), encode_shards(paths, basis, PHASES[phase].shrink)
                skin = skin_mask(latents, weight)
            now = phase
        if spent - refreshed > REFRESH_SECONDS and len(paths := shards(work.train_shards)) > known:
            latents = np.concatenate([latents, encode_shards(paths[known:], basis, PHASES[now].shrink)])
            skin = skin_mask(latents, weight)
            known, refreshed = len(paths), spent
        # A multiple of four: the UNet halves the latents twice.
        side = max(4, round(PHASES[now].crop * latents.shape[-1] / 4) * 4)
        batch_size = round(settings.unet_batch * PHASES[now].batch)
        batch = draw(latents, skin, tokens, alphas, rng, batch_size, side)
        rate = learning_rate(step, spent / clock.budget)
        with torch.autocast("cpu", torch.bfloat16):
            output = editor(batch.noisy, batch.condition, batch.timestep, batch.tokens)
        errors = (weight * (output.float() - batch.target).square()).mean(dim=1)
        errors = (errors * (1.0 + (SKIN_WEIGHT - 1.0) * batch.skin)).mean(dim=(1, 2))
        loss = (importance[batch.edit] * errors).mean()
        loss.backward()
        spent = team.average_gradients(editor.parameters(), clock.spent)
        torch.nn.utils.clip_grad_norm_(editor.parameters(), 1.0)
        optimizer.step(rate * MUON_RATE, rate * ADAM_RATE)
        average.update(editor)
        samples += team.size * len(batch.target)
        losses.append(loss.item())
        step += 1
        if step % 25 == 0 and team.rank == 0:
            recent = f"loss {np.mean(losses[-25:]):.4f} median {np.median(losses[-25:]):.4f}"
            seen = f"{samples} samples of {len(latents)} scenes"
            print(f"unet: step {step} {spent:.0f}s {recent} {seen}", flush=True)
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
