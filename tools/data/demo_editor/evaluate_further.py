"""Stage `evaluate` with --further: named colours, forms and expressions on held-out identities, against the true edits.

What counts for a named colour: that pairs of part and colour which were never trained come out as well as trained ones, and that
what the words do not name stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from diffusers import DiffusionPipeline
from jaxtyping import Float
from rich.table import Table

from edit3dgs_ns.synthetic.named_colors import NAMED_COLORS
from tools.data.demo_editor.data import HELDOUT_SEED
from tools.data.demo_editor.evaluate import BACKGROUND, edit_pictures, psnr, restore_detail
from tools.data.demo_editor.further import FURTHER, NEVER_TRAINED, part_of, picture_of

UNCHANGED = 2 / 255
"""A pixel is not named by an edit whose true result differs by at most this much there in every colour."""


@dataclass(frozen=True)
class FurtherScore:
    """Means over scenes: PSNR in dB, changes as mean absolute differences in [0, 1]."""

    edit: str
    psnr_input: float
    psnr_edited: float
    unnamed_change: float
    """Of what the edit does not name, the white background left out."""

    @property
    def gain(self) -> float:
        """How much closer (dB) the edit is to the truth than the input was."""
        return self.psnr_edited - self.psnr_input

    @property
    def group(self) -> str:
        """Part, and whether its colour was trained; or the edit of form or expression itself."""
        if self.edit not in NAMED_COLORS:
            return self.edit
        return f"{part_of(self.edit)}, {'never trained' if self.edit in NEVER_TRAINED else 'trained'}"


def evaluate_further(
    pipeline: DiffusionPipeline,
    info: dict[str, Any],
    scenes: int,
    detail: float = 0.0,
    keys: tuple[str, ...] = tuple(FURTHER),
) -> list[FurtherScore]:
    """Score edits of FURTHER on one scene of each of some held-out people; the wording changes from scene to scene.

    Args:
        detail: how much of the input's detail that the autoencoder loses is given back.
    """
    seeds = [HELDOUT_SEED + 2 * person for person in range(scenes)]
    before = np.stack([picture_of(seed, info["resolution"], None) for seed in seeds])
    scores = []
    for key in keys:
        truth = np.stack([picture_of(seed, info["resolution"], key) for seed in seeds])
        wordings = FURTHER[key].instructions
        prompts = [wordings[i % len(wordings)] for i in range(scenes)]
        edited = edit_pictures(pipeline, info, before, prompts)
        if detail > 0:
            edited = restore_detail(pipeline.vae, edited, before, detail)
        rows = [
            (psnr(b, t), psnr(e, t), unnamed_change(b, e, t))
            for b, e, t in zip(before, edited, truth, strict=True)
        ]
        scores.append(FurtherScore(key, *np.mean(rows, axis=0).tolist()))
    return scores


def unnamed_change(
    before: Float[np.ndarray, "h w 3"], edited: Float[np.ndarray, "h w 3"], truth: Float[np.ndarray, "h w 3"]
) -> float:
    """Mean absolute change of the pixels that the true edit leaves as they are, the white background left out."""
    same = np.abs(truth - before).max(axis=-1) <= UNCHANGED
    same &= before.min(axis=-1) < BACKGROUND
    return float(np.abs(edited - before)[same].mean())


def further_table(scores: list[FurtherScore]) -> Table:
    """Named colours by part, forms and expressions one by one, as a rich table."""
    out = Table(title="Further edits on identities never trained on")
    for name in ("edit", "number", "PSNR input -> true", "PSNR edited -> true", "gain (dB)", "not named"):
        out.add_column(name, justify="left" if name == "edit" else "right")
    for group in dict.fromkeys(score.group for score in scores):
        some = [score for score in scores if score.group == group]
        before, after, unnamed = np.mean(
            [(s.psnr_input, s.psnr_edited, s.unnamed_change) for s in some], axis=0
        )
        figures = (f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}", f"{unnamed:.4f}")
        out.add_row(group, str(len(some)), *figures)
    return out
