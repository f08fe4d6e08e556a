"""Random training batches: scene, edit, wording, noise level, what is withheld, and who looks at whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers import CLIPTokenizer

from tools.data.demo_editor.chance import blend_hues, chosen_hue, push
from tools.data.demo_editor.further import COLORS_SHOWN, FORMS_SHOWN, FURTHER
from tools.data.demo_editor.latents import Scenes
from tools.data.demo_editor.looking import Looking
from tools.data.demo_editor.settings import EDIT_ORDER, OPEN_ORDER

DROP_TEXT, DROP_IMAGE, DROP_BOTH = 0.04, 0.03, 0.03
"""Shares of samples without instruction, without image, without both: for classifier-free guidance."""
STALE = 0.35
"""Share of samples whose noised latents are not those of the true edit but of a mixture with the unedited
picture: an avatar's render in the middle of an edit. The target stays the true edit."""
SOFTENED = 0.3
"""Share of samples whose image condition was blurred and made noisy, as renders of a splat avatar are."""
EDIT_SHARES = (0.7, 0.05, 0.06, 0.07, 0.06, 0.06)
"""Shares of the plain samples by edit, in EDIT_ORDER: wrinkles are fine detail and take most practice, one flat colour little."""
HINTED = 0.5
"""Share of the samples below `Draw.decided_below` whose noise still says the hue. An editor whose views agree brings them to a hue
that is none of their noise's, and each has to follow what it sees; alone, the noise is a help while little can be seen."""
FORM_SHARE = 0.3
"""Share of forms and expressions in the samples with a further edit; the rest are named colours."""
PAIRS = (Looking(1, 1), Looking(2, 2), Looking(2, 1))
"""Ways in which the rows of a batch look at each other; each batch draws one."""


OPENED = len(EDIT_ORDER) + len(OPEN_ORDER)
"""The further edits count from here."""


@dataclass
class Batch:
    """One training batch; see `draw`. `edit` counts the plain edits first, then the open and the further ones."""

    noisy: Tensor
    condition: Tensor
    timestep: Tensor
    tokens: Tensor
    target: Tensor
    edit: Tensor
    skin: Tensor
    grey: Tensor
    """The mean of all hues, what a model says that cannot read the choice; the target where nothing is open."""


@dataclass(frozen=True)
class Draw:
    """What batches are drawn with in a phase of the training.

    Attributes:
        size: samples.
        side: of the crops, in latents; the latents' own side for whole pictures.
        open_share: share of samples with an open edit.
        further_share: share of samples with a further edit.
        push: see `chance.push`.
        guided: whether text and image are withheld at times, for classifier-free guidance.
        decided_below: timestep below which what is left of the picture says which hue an open edit has, and the noise in a share of
            HINTED alone.
        shares: of the plain samples by edit, in EDIT_ORDER.
    """

    size: int
    side: int
    open_share: float = 0.0
    further_share: float = 0.0
    push: float = 0.0
    guided: bool = True
    decided_below: int = 0
    shares: tuple[float, ...] = EDIT_SHARES


@dataclass(frozen=True)
class Levels:
    """Shares of the clean latents and of the noise in noised latents, at each of 1000 timesteps."""

    signal: Float[Tensor, 1000]
    noise: Float[Tensor, 1000]


def tokenize_instructions(tokenizer: CLIPTokenizer) -> list[Tensor]:
    """Token ids (wordings, length) per edit in EDIT_ORDER, OPEN_ORDER and FURTHER, and last those of the empty text."""
    from edit3dgs_ns.synthetic.edits import EDITS, OPEN_EDITS

    def ids(texts: list[str]) -> Tensor:
        return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids

    wordings = [EDITS[key].instructions for key in EDIT_ORDER]
    wordings += [OPEN_EDITS[key].instructions for key in OPEN_ORDER]
    wordings += [edit.instructions for edit in FURTHER.values()]
    return [*(ids([*texts, *(t.rstrip(".?!") + "." for t in texts)]) for texts in wordings), ids([""])]


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


def draw_looking(rng: np.random.Generator, open_share: float) -> Looking:
    """How the rows of the next batch look at each other; each at itself in phases without open edits."""
    return PAIRS[rng.choice(3, p=(0.4, 0.3, 0.3))] if open_share else PAIRS[0]


def draw(
    scenes: Scenes,
    tokens: list[Tensor],
    levels: Levels,
    rng: np.random.Generator,
    options: Draw,
    looking: Looking,
) -> Batch:
    """A random batch, group after group; the views of a group show one person and have edit, wording and level in common.

    Args:
        levels: of the noise schedule.
    """
    size, views, side = options.size // looking.views * looking.views, looking.views, options.side
    groups = size // views
    edit, scene, picture = _choose(scenes, rng, options, groups, views)
    softened = np.where(rng.random(size) < SOFTENED, 7, 0)
    corners = crop_corners(scenes.skin[scene], side, rng)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))

    def cut(maps: np.ndarray, row: int) -> np.ndarray:
        y, x = corners[row]
        return maps[..., y : y + side, x : x + side]

    def pick(which: np.ndarray) -> Tensor:
        return torch.from_numpy(
            np.stack([cut(scenes.plain[scene[i], which[i]], i) for i in range(size)]).astype(np.float32)
        )

    original, condition = pick(np.zeros(size, int)), pick(softened)
    noise = torch.randn(original.shape, generator=generator)
    push(noise, options.push, generator)
    # Even a trace of the edited picture in the noise gives the edit away: the instruction is read at the very top
    # only, and there the sampler's first step decides.
    lowest = np.select([(level := rng.random(groups)) < 0.4, level < 0.7], [985, 650], 0)
    timestep = rng.integers(lowest, 1000).repeat(views)
    hues = [
        chosen_hue(noise[first : first + looking.sources])
        if timestep[first] >= options.decided_below or rng.random() < HINTED
        else rng.random()
        for first in range(0, size, views)
    ]
    target, grey = _targets(scenes, pick, cut, edit, scene, hues)
    for row in np.flatnonzero(edit >= OPENED):
        shown = cut(scenes.further[scene[row], picture[row]], row)
        target[row] = grey[row] = torch.from_numpy(shown.astype(np.float32))
    stale = torch.from_numpy((rng.random(size) * (rng.random(size) < STALE)).astype(np.float32))
    start = torch.lerp(target, original, stale[:, None, None, None])
    signal, strength = (
        share[torch.from_numpy(timestep)][:, None, None, None] for share in (levels.signal, levels.noise)
    )
    wording = [tokens[e][rng.integers(len(tokens[e]))] for e in edit[::views]]
    chosen, fate = [wording[i // views] for i in range(size)], rng.random(groups).repeat(views)
    for i in range(size if options.guided else 0):
        if fate[i] < DROP_TEXT + DROP_BOTH:
            chosen[i] = tokens[-1][0]
        if DROP_TEXT <= fate[i] < DROP_TEXT + DROP_BOTH + DROP_IMAGE:
            condition[i] = 0.0
    return Batch(
        signal * start + strength * noise,
        condition,
        torch.from_numpy(timestep),
        torch.stack(chosen),
        target,
        torch.from_numpy(edit),
        torch.from_numpy(np.stack([cut(scenes.skin[scene[i]], i) for i in range(size)])),
        grey,
    )


def _choose(
    scenes: Scenes, rng: np.random.Generator, options: Draw, groups: int, views: int
) -> tuple[Int64[np.ndarray, " size"], Int64[np.ndarray, " size"], Int64[np.ndarray, " size"]]:
    """Edit and scene of every sample, and which of the scene's further pictures, if its edit is a further one.

    Scenes 2k and 2k + 1 show one person, and have further pictures of the same edits.
    """
    kind = rng.random(groups)
    is_open = kind < options.open_share
    is_further = (kind >= options.open_share) & (kind < options.open_share + options.further_share)
    plain = rng.choice(len(EDIT_ORDER), groups, p=options.shares)
    edit = np.where(is_open, len(EDIT_ORDER) + rng.integers(len(OPEN_ORDER), size=groups), plain)
    rendered = np.where(is_open, len(scenes.opened), len(scenes.plain))
    limit = np.where(is_further, len(scenes.further), rendered) // views
    first = rng.integers(np.maximum(limit, 1)) * views
    form = COLORS_SHOWN + rng.integers(FORMS_SHOWN, size=groups)
    picture = np.where(rng.random(groups) < FORM_SHARE, form, rng.integers(COLORS_SHOWN, size=groups))
    if is_further.any():
        numbers = scenes.numbers[first * is_further, picture]
        edit = np.where(is_further, OPENED + numbers, edit)
    scene = (first[:, None] + np.arange(views)).reshape(-1)
    return edit.repeat(views), scene, picture.repeat(views)


def _targets(
    scenes: Scenes,
    pick: Callable[[np.ndarray], Tensor],
    cut: Callable[[np.ndarray, int], np.ndarray],
    edit: Int64[np.ndarray, " size"],
    scene: Int64[np.ndarray, " size"],
    hues: list[float],
) -> tuple[Tensor, Tensor]:
    """The true edits, every open one in its group's hue, and the same with every open edit in the mean of its hues."""
    is_open = (edit >= len(EDIT_ORDER)) & (edit < OPENED)
    target = pick(np.where(edit >= len(EDIT_ORDER), 0, edit + 1))
    grey = target.clone()
    for row in np.flatnonzero(is_open):
        looks = cut(scenes.opened[scene[row], edit[row] - len(EDIT_ORDER)], row)
        known = torch.from_numpy(looks.astype(np.float32))
        target[row], grey[row] = blend_hues(known, hues[row * len(hues) // len(edit)]), known.mean(dim=0)
    return target, grey
