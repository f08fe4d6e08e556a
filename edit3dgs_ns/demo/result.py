"""The demo's last step: grid of images, video and report, rendered from the avatar before and after the edit."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.progress import Progress

from edit3dgs_ns.demo.settings import BASE_METHOD, DemoFiles, DemoSettings, run_dir
from edit3dgs_ns.edit_training.history import HISTORY_FILE
from edit3dgs_ns.evaluation.comparison_grid import Column, Row, draw_comparison_grid
from edit3dgs_ns.evaluation.image_metrics import image_quality, mean_change
from edit3dgs_ns.files import write_durably, written_beside
from edit3dgs_ns.rendering.comparison_views import comparison_views
from edit3dgs_ns.rendering.trajectories import swaying
from edit3dgs_ns.rendering.videos import render_video
from edit3dgs_ns.run_evaluation.truth import spread
from edit3dgs_ns.runs.trained_run import Split, TrainedRun, moved_camera

CELL_WIDTH = 320
"""Greatest width of an image in the grid, in pixels; larger renders are reduced, which smooths them."""


def write_result(
    settings: DemoSettings, files: DemoFiles, seconds: Mapping[str, float], start: float, progress: Progress
) -> None:
    """Render before and after and write the demo's three files.

    Args:
        settings: of the demo.
        files: of the demo; both trainings are there.
        seconds: what the earlier steps took, for the report.
        start: when this step began, on time.monotonic()'s clock.
        progress: shows how far it is.
    """
    base = TrainedRun(run_dir(files.base, BASE_METHOD) / "config.yml")
    edited = TrainedRun(run_dir(files.edit, "edit3dgs") / "config.yml")
    figures = _figures(base, edited, settings.render.images_per_task, progress)
    _write_grid(settings, files.grid, base, edited, progress)
    _write_video(settings, files.video, base, edited, progress)
    history = json.loads((run_dir(files.edit, "edit3dgs") / HISTORY_FILE).read_text(encoding="utf-8"))
    report = {
        "base": figures["base"],
        "edit": {
            "prompt": settings.prompt,
            "rounds": history["rounds"],
            "edited_images": history["edited_images"],
            **figures["change"],
        },
        "seconds": {**seconds, "render": time.monotonic() - start},
    }
    write_durably(files.report, (json.dumps(_rounded(report), indent=2) + "\n").encode())


# ------------------------------------------------------------------------------------------- figures


def _figures(base: TrainedRun, edited: TrainedRun, most: int, progress: Progress) -> dict[str, Any]:
    """The quality of the base avatar on held-out images, and what the edit changed in the same views."""
    quality, befores, afters, heads = {}, [], [], []
    for task, name in (("novel_view", "val"), ("self_reenactment", "test")):
        split = base.split(name)
        pairs = []
        for index in progress.track(
            spread(len(split), most), description=f"Measuring: {task.replace('_', ' ')}"
        ):
            camera = split.cameras[index : index + 1]
            before = base.render(camera)
            pairs.append((before.rgb, split.image(index)))
            befores.append(before.rgb)
            afters.append(edited.render(camera).rgb)
            heads.append(split.mask(index) > 0.5)
        quality[task] = image_quality(pairs).known()
    change = mean_change(np.stack(befores), np.stack(afters), np.stack(heads))
    return {
        "base": quality,
        "change": {"change_on_head": change.on_head, "change_on_background": change.on_background},
    }


# ---------------------------------------------------------------------------------------------- grid


def _write_grid(
    settings: DemoSettings, path: Path, base: TrainedRun, edited: TrainedRun, progress: Progress
) -> None:
    scale = settings.render.scale
    columns = []
    views = list(comparison_views(base))
    for group, caption, camera in progress.track(views, description="Rendering before and after"):
        camera = moved_camera(camera, scale=scale)
        columns.append(Column(caption, [run.render(camera).rgb for run in (base, edited)], group=group))
    rows = [Row("Before"), Row("After", f"“{settings.prompt}”")]
    grid = draw_comparison_grid(columns, rows, cell_width=min(columns[0].images[0].shape[1], CELL_WIDTH))
    with written_beside(path) as partial:
        grid.save(partial, format="png")


# --------------------------------------------------------------------------------------------- video


def _write_video(
    settings: DemoSettings, path: Path, base: TrainedRun, edited: TrainedRun, progress: Progress
) -> None:
    """Before and after side by side, moving through the unseen sequence while the camera sways."""
    render = settings.render
    count = max(2, round(render.video_seconds * render.fps))
    trajectory = swaying(base, _times_through(base.split("test"), count)).scaled(render.scale)
    render_video(
        path,
        [base, edited],
        trajectory,
        fps=render.fps,
        titles=("before", f"“{settings.prompt}”"),
        progress=progress,
        description="Rendering the unseen sequence",
    )


def _times_through(split: Split, count: int) -> Float[np.ndarray, " count"]:
    """`count` times that go through the split's timesteps at an even pace."""
    times = np.unique(split.times)
    return np.interp(np.linspace(0, len(times) - 1, count), np.arange(len(times)), times)


def _rounded(value: Any) -> Any:
    """Floats with the digits that mean something."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
