"""Running `ns-train edit3dgs` for a row, and how good the avatar is that it leaves."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.demo.job import Demo, find_ns_train, newest_step
from edit3dgs_ns.demo.settings import BASE_METHOD, CHECKPOINTS, RUN, run_dir
from tools.measure.ablation.truth import Picture, TrueHead, picture_of

METHOD = "edit3dgs"
TASKS = {"novel_view": "val", "unseen": "test"}
"""Figures, and the split that each is measured on."""
HUE_VIEWS = 4
"""Training views that the look of an open edit is found on."""


class TrainingFailed(Exception):
    """`ns-train` ended with an error, which is in its log."""


def make_base(demo: Demo) -> Path:
    """The run folder of the demo's avatar, which is made if it is missing, and left alone if there is one."""
    run = run_dir(demo.files.base, BASE_METHOD)
    done = newest_step(run / CHECKPOINTS)
    if done is None or done + 1 < demo.settings.base_steps or not (run / "config.yml").is_file():
        demo.make_base()
    return run


def train(folder: Path, capture: Path, flags: Sequence[str], steps: int) -> Path:
    """Edit the avatar, or go on with that.

    Args:
        folder: of the row; the run is inside, and what ns-train prints is in its train.log.
        capture: that `edit3dgs capture` wrote.
        flags: of the row.
        steps: of the whole run.

    Returns:
        The run's folder.

    Raises:
        TrainingFailed: ns-train ended with an error.
    """
    run = run_dir(folder, METHOD)
    done = newest_step(run / CHECKPOINTS)
    if done is not None and done + 1 >= steps:
        return run
    resume = () if done is None else ("--load-dir", str(run / CHECKPOINTS))
    command = [
        find_ns_train(), METHOD, "--output-dir", str(folder.parent), "--experiment-name", folder.name,
        "--timestamp", RUN, "--vis", "tensorboard", *resume, *flags, "nersemble-data", "--data", str(capture),
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "train.log"
    environment = {"PYTHONWARNINGS": "ignore::FutureWarning", **os.environ}
    with log.open("ab") as file:
        code = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False
        ).returncode
    if code != 0:
        end = log.read_text(encoding="utf-8", errors="replace").strip()[-1500:]
        raise TrainingFailed(f"{folder.name}: ns-train ended with code {code}. The end of {log}:\n{end}")
    return run


def editing_cost(run: Path) -> dict[str, Any]:
    """UNet evaluations and seconds of all rounds, from the run's own record."""
    history = json.loads((run / "edit_history.json").read_text(encoding="utf-8"))
    return {name: history[name] for name in ("unet_evaluations", "seconds")}


@dataclass(frozen=True)
class Shown:
    """An avatar's picture beside the true one."""

    avatar: Float[np.ndarray, "height width 3"]
    true: Float[np.ndarray, "height width 3"]


def avatar_figures(
    run: Path, head: TrueHead, edit: str, images: int, hue_views: Sequence[int]
) -> tuple[dict[str, Any], dict[str, list[Shown]]]:
    """The fitted avatar against the true edited head, on the held-out camera and in the unseen sequence.

    Args:
        run: a finished run.
        head: the truth of its capture.
        edit: a key of EDITS or OPEN_EDITS.
        images: at most so many per task, spread evenly.
        hue_views: training views that the look of an open edit may be found on.

    Returns:
        The figures and the hue, and the pictures that they were measured on.
    """
    from edit3dgs_ns.evaluation.image_metrics import image_quality
    from edit3dgs_ns.runs.trained_run import TrainedRun

    with contextlib.redirect_stdout(io.StringIO()):  # Nerfstudio says what it loads, for every row
        finished = TrainedRun(run / "config.yml")
    train_split = finished.split("train")
    some = spread(hue_views, HUE_VIEWS)
    results = [finished.render(train_split.cameras[view : view + 1]).rgb for view in some]
    hue = head.nearest_hue(results, pictures_of(train_split, some), edit)
    figures: dict[str, Any] = {"hue": hue}
    shown: dict[str, list[Shown]] = {}
    for task, name in TASKS.items():
        split = finished.split(name)
        chosen = spread(range(len(split)), images)
        shown[task] = [
            Shown(finished.render(split.cameras[i : i + 1]).rgb, head.render(picture, edit, hue))
            for i, picture in zip(chosen, pictures_of(split, chosen), strict=True)
        ]
        quality = image_quality((s.avatar, s.true) for s in shown[task])
        figures |= {f"psnr_{task}": quality.psnr, f"ssim_{task}": quality.ssim}
    return figures, shown


def pictures_of(split: Any, indices: Sequence[int]) -> list[Picture]:
    """What images of a split show."""
    return [picture_of(Path(split.dataset.image_filenames[index])) for index in indices]


def spread(items: Sequence[int], most: int) -> list[int]:
    """At most `most` of the items, spread evenly."""
    places = np.linspace(0, len(items) - 1, min(len(items), most)).round()
    return [items[int(place)] for place in places]
