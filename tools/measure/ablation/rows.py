"""Making one row: train, measure, keep. Runs in a process of its own, one row after another."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from edit3dgs_ns.evaluation.image_layout import to_uint8
from edit3dgs_ns.files import written_beside
from tools.measure.ablation.edited_views import Batch, ViewMeasures, read_batch
from tools.measure.ablation.plan import Effort, Job
from tools.measure.ablation.training import Shown, avatar_figures, editing_cost, train
from tools.measure.ablation.truth import TrueHead, sentence

KEYS = (
    "correspondence", "retention", "prompt", "seed", "view_disagreement", "time_disagreement", "expression_error",
    "change_outside_mask", "psnr_novel_view", "ssim_novel_view", "psnr_unseen", "ssim_unseen", "unet_evaluations", "seconds",
)  # fmt: skip
"""What a row of ablation.json holds."""
RECORD = "row.json"
PICTURES = "pictures.npz"


@dataclass(frozen=True)
class Place:
    """Where everything is."""

    out: Path
    """A folder for every row, and renders that many rows need."""
    capture: Path
    avatar: Path
    """Run folder of the avatar that is edited."""
    editor: str


@dataclass(frozen=True)
class Task:
    """A row to be made; can be sent to another process."""

    job: Job
    place: Place
    effort: Effort
    fingerprint: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Of the row."""
        return self.place.out / "rows" / self.job.name


def read_row(task: Task) -> dict[str, Any] | None:
    """The finished row, if it is there and was made with the same settings."""
    path = task.folder / RECORD
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return record if record.get("fingerprint") == task.fingerprint else None


def make_row(task: Task) -> dict[str, Any]:
    """Train and measure one row, or go on with that.

    Raises:
        TrainingFailed: ns-train ended with an error.
    """
    started = time.monotonic()
    job, place, effort = task.job, task.place, task.effort
    _claim(task)
    flags = job.flags(sentence(job.edit), str(place.avatar), place.editor, effort)
    run = train(task.folder, place.capture, flags, effort.train_steps)
    trained = time.monotonic()
    head, measures = _truth(place.capture, place.out / "truth")
    batch = read_batch(run, _training_images(place.capture))
    views = measures.measure(batch, job.edit)
    figures, shown = avatar_figures(run, head, job.edit, effort.images, batch.views)
    record = {
        "fingerprint": task.fingerprint,
        "row": _row(job, {**views, **figures, **editing_cost(run)}),
        "details": {
            "name": job.name,
            "edit": job.edit,
            **{key: value for key, value in {**views, **figures}.items() if key not in KEYS},
            "training_seconds": round(trained - started, 1),
            "measuring_seconds": round(time.monotonic() - trained, 1),
        },
    }
    _write_pictures(task.folder / PICTURES, head, batch, job.edit, shown)
    with written_beside(task.folder / RECORD) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def _claim(task: Task) -> None:
    """Make the row's folder; what another plan left in it goes."""
    claim = task.folder / "settings.json"
    text = json.dumps(task.fingerprint, sort_keys=True)
    if claim.is_file() and claim.read_text(encoding="utf-8") == text:
        return
    if task.folder.is_dir():
        shutil.rmtree(task.folder)
    with written_beside(claim) as partial:
        partial.write_text(text, encoding="utf-8")


def _row(job: Job, figures: dict[str, Any]) -> dict[str, Any]:
    known = {
        "correspondence": job.arm.correspondence,
        "retention": job.arm.retention,
        "prompt": sentence(job.edit),
        "seed": job.seed,
        **figures,
    }
    return {key: _rounded(known[key]) for key in KEYS}


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


@lru_cache(maxsize=1)
def _truth(capture: Path, cache: Path) -> tuple[TrueHead, ViewMeasures]:
    """Kept for all rows that a process makes."""
    head = TrueHead(capture, cache)
    return head, ViewMeasures(head)


@lru_cache(maxsize=1)
def _training_images(capture: Path) -> list[Path]:
    """In the order that training views are numbered in."""
    from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig

    outputs = NersembleDataParserConfig(data=capture).setup().get_dataparser_outputs(split="train")
    return [Path(path) for path in outputs.image_filenames]


def _write_pictures(
    path: Path, head: TrueHead, batch: Batch, edit: str, shown: dict[str, list[Shown]]
) -> None:
    """What the sheets show of this row."""
    hue = head.nearest_hue(list(batch.edited), batch.pictures, edit)
    look = np.stack([head.render(picture, edit, hue) for picture in batch.pictures])
    arrays: dict[str, Any] = {
        "pictures": np.array([f"{s}/{t}/{c}" for s, t, c in batch.pictures]),
        "originals": to_uint8(batch.originals),
        "edited": to_uint8(batch.edited),
        "true": to_uint8(look),
    }
    for task, pairs in shown.items():
        some = [pairs[len(pairs) // 3], pairs[-1]]
        arrays[task] = np.stack([[to_uint8(s.avatar), to_uint8(s.true)] for s in some])
    with written_beside(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
