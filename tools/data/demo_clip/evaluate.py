"""Stage `evaluate`: the exported folder, used as `edit3dgs evaluate` uses it, on people it was never trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from rich.table import Table

from edit3dgs_ns.evaluation.clip import Clip
from edit3dgs_ns.evaluation.clip_scores import direction_similarity
from tools.data.demo_clip.captions import PLAIN, Facts, candidates, looks, usual_caption

CHOICES = 12
"""Captions that the right one is among."""
GOAL = 0.85


@dataclass(frozen=True)
class Score:
    """Of one look."""

    look: str
    accuracy: float
    """Share of the pictures whose right caption is the nearest of CHOICES."""
    own_direction: float
    """Mean CLIP-S of the true edit and its own captions; of the unedited look none (NaN)."""
    other_directions: float
    """The same with the captions of the other edits."""


def evaluate(
    clip: Clip, images: UInt8[np.ndarray, "pictures side side 3"], facts: Sequence[Facts]
) -> list[Score]:
    """Score every look.

    The right caption and eleven wrong ones: all other looks of the same man or woman, and the right look with man and woman
    exchanged; the nearest by cosine is the answer.

    Args:
        clip: what is scored.
        images: whole scenes, one picture of each look after the other.
        facts: what is true of each picture.
    """
    rng = np.random.default_rng(0)
    pictures = clip.embed_images(list(images))
    right = np.zeros(len(images), bool)
    for i, picture in enumerate(facts):
        texts = clip.embed_texts([caption.text for caption in candidates(picture, CHOICES, rng)])
        right[i] = int((texts @ pictures[i]).argmax()) == 0
    names = np.array([picture.look for picture in facts])
    by_look = {look: pictures[names == look] for look in looks()}
    return [
        Score(look, float(right[names == look].mean()), *_directions(clip, by_look, look)) for look in looks()
    ]


def _directions(clip: Clip, by_look: dict[str, np.ndarray], look: str) -> tuple[float, float]:
    """CLIP-S of a true edit with its own captions, and the mean over those of the other edits."""
    if look == PLAIN:
        return float("nan"), float("nan")
    edits = [look, *(other for other in looks() if other not in (PLAIN, look))]
    source, *targets = clip.embed_texts([usual_caption(name, None).text for name in (PLAIN, *edits)])
    scores = [
        direction_similarity(by_look[PLAIN], by_look[look], source, target).mean() for target in targets
    ]
    return float(scores[0]), float(np.mean(scores[1:])) if len(scores) > 1 else float("nan")


def accuracy(scores: Sequence[Score]) -> float:
    """Over all looks, each counting the same (each has as many pictures)."""
    return float(np.mean([score.accuracy for score in scores]))


def write_json(path: Path, scores: Sequence[Score]) -> None:
    """The share of right answers, over all looks and of each."""
    from edit3dgs_ns.files import write_durably

    content = {"accuracy": accuracy(scores), "looks": {score.look: score.accuracy for score in scores}}
    write_durably(path, (json.dumps(content, indent=1) + "\n").encode())


def table(scores: Sequence[Score]) -> Table:
    """As a rich table."""
    out = Table(title=f"Demo CLIP on people never trained on: right caption out of {CHOICES}")
    for name in ("look", "right", "CLIP-S, own caption", "CLIP-S, others'"):
        out.add_column(name, justify="left" if name == "look" else "right")
    for score in scores:
        shown = [
            f"{value:.3f}" if np.isfinite(value) else ""
            for value in (score.own_direction, score.other_directions)
        ]
        out.add_row(score.look, f"{100 * score.accuracy:.1f} %", *shown)
    out.add_row("mean", f"{100 * accuracy(scores):.1f} %")
    return out
