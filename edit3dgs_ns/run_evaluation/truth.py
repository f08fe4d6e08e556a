"""Compares renders with ground truth: the capture's images, and the true edits of a synthetic capture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.evaluation.image_metrics import Perceptual, Quality, image_quality
from edit3dgs_ns.evaluation.report_data import Figure
from edit3dgs_ns.rendering.views import EvaluationView, Setting
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.synthetic.settings import SETTINGS_FILE

OPTION = "--true-edit"
MAX_TRUE_EDITS = 24
"""Most true edits that are ray traced for a setting: each takes about half a second."""


def base_quality(
    run: TrainedRun,
    name: str,
    most: int,
    perceptual: Perceptual | None,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Quality of an avatar on held-out images, as GaussianAvatars reports it: all images of a split, white background included.

    Args:
        run: the avatar.
        name: `val` (novel view) or `test` (self-reenactment, all cameras).
        most: largest number of images, spread evenly; 0 for all.
        perceptual: LPIPS, if its weights are available.
        tick: called after every image.

    Returns:
        psnr, ssim and, if available, lpips; nothing for a split without images.
    """
    split = run.split(name)
    if not len(split):
        return {}

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index in spread(len(split), most):
            yield run.render(split.cameras[index : index + 1]).rgb, split.image(index)
            tick()

    return image_quality(pairs(), perceptual).known()


def spread(total: int, most: int) -> list[int]:
    """At most `most` indices below `total` (0: all), spread evenly."""
    count = min(total, most) if most > 0 else total
    return sorted({int(i) for i in np.linspace(0, total - 1, count).round()})


@dataclass(frozen=True)
class TrueEdit:
    """An edit of a synthetic capture whose true result is known."""

    key: str
    """Of `TRUE_EDITS`."""

    def render(self, image: Path) -> np.ndarray:
        """The true edited version of a captured image, sRGB on white in [0, 1]."""
        from edit3dgs_ns.synthetic.replay import render_edited

        return render_edited(image, self.key)


def find_true_edit(run: TrainedRun, prompt: str, choice: str | None) -> TrueEdit | None:
    """The true edit that a prompt asks for; None where there is none.

    Args:
        run: says which capture.
        prompt: looked up among the wordings of all edits.
        choice: a key of `TRUE_EDITS`, `none`, or None to go by the prompt.

    Raises:
        ValueError: `choice` is no such key, or the capture was not made by `edit3dgs capture`.
    """
    from edit3dgs_ns.synthetic.true_edits import TRUE_EDITS

    synthetic = is_synthetic(run)
    if choice is not None and choice != "none":
        if choice not in TRUE_EDITS:
            raise UserError(f"{OPTION} {choice}: expected none or one of {', '.join(TRUE_EDITS)}.")
        if not synthetic:
            raise UserError(
                f"{OPTION} {choice}: true edits exist for captures of `edit3dgs capture` alone, which have a {SETTINGS_FILE}."
            )
        return TrueEdit(choice)
    if choice == "none" or not synthetic:
        return None
    wanted = _plain(prompt)
    for key, edit in TRUE_EDITS.items():
        if wanted in {_plain(wording) for wording in edit.instructions}:
            return TrueEdit(key)
    return None


def is_synthetic(run: TrainedRun) -> bool:
    """Whether `edit3dgs capture` made the run's capture."""
    images = [
        Path(name) for split in ("val", "test") for name in run.split(split).dataset.image_filenames[:1]
    ]
    return bool(images) and all((image.parents[2] / SETTINGS_FILE).is_file() for image in images)


def compare_with_truth(
    base: TrainedRun,
    edited: TrainedRun,
    setting: Setting,
    truth: TrueEdit,
    perceptual: Perceptual | None,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Figure]:
    """PSNR, SSIM and LPIPS of the edited renders to the true edited images, beside those of the unedited renders.

    The true image is the same frame ray traced after the edit; the difference of the two figures is the edit's gain
    over no edit at all.
    """
    views: list[EvaluationView] = [view for path in setting.paths for view in path if view.image is not None]
    chosen = [views[i] for i in spread(len(views), MAX_TRUE_EDITS)] if views else []
    if not chosen:
        return {}
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for view in chosen:
        assert view.image is not None
        rows.append((base.render(view.camera).rgb, edited.render(view.camera).rgb, truth.render(view.image)))
        tick()
    after: Quality = image_quality([(row[1], row[2]) for row in rows], perceptual)
    before: Quality = image_quality([(row[0], row[2]) for row in rows], perceptual)
    reference = before.known()
    return {f"truth_{name}": Figure(value, reference[name]) for name, value in after.known().items()}


def _plain(text: str) -> str:
    """A prompt in lower case, without extra spaces and closing punctuation."""
    return " ".join(text.lower().split()).rstrip(".!?")
