"""Figures of a whole run: view disagreement, size and speed of the avatar, and cost of the edit."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from edit3dgs_ns.editing.agreement.key_views import order_around_head
from edit3dgs_ns.evaluation.correspondence import PixelMatches, view_disagreement
from edit3dgs_ns.evaluation.report_data import Figure, mean
from edit3dgs_ns.rendering.views import front_camera
from edit3dgs_ns.run_evaluation.runs import EditedRun
from edit3dgs_ns.run_evaluation.truth import spread
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.training.surface_maps import AvatarMaps

NUM_TIMESTEPS = 3
"""Timesteps of the training motion at which views are compared."""
_TIMED = 15
"""Renders that are timed, after three untimed ones."""


def run_figures(
    run: EditedRun, base: TrainedRun, edited: TrainedRun, tick: Callable[[], None] = lambda: None
) -> dict[str, Figure]:
    """All figures that belong to no single setting."""
    figures = {
        "view_disagreement": disagreement(base, edited, tick),
        "gaussians": Figure(_count(edited), _count(base)),
        "megabytes": Figure(_megabytes(edited), _megabytes(base)),
        "fps": Figure(frames_per_second(edited), frames_per_second(base)),
    }
    tick()
    history = run.history
    if history.get("seconds"):
        figures["edit_minutes"] = Figure(float(history["seconds"]) / 60)
    if history.get("edited_images"):
        figures["edited_images"] = Figure(float(history["edited_images"]))
    peaks = [batch.get("peak_memory_gb") for batch in history.get("batches", []) if isinstance(batch, dict)]
    known = [float(peak) for peak in peaks if peak is not None]
    if known:
        figures["peak_memory_gb"] = Figure(max(known))
    return figures


def disagreement(base: TrainedRun, edited: TrainedRun, tick: Callable[[], None] = lambda: None) -> Figure:
    """View disagreement over a few timesteps of the training motion, each seen by all training cameras in order around the head."""
    maps = AvatarMaps(base.pipeline.datamanager, base.pipeline.model)
    split = edited.split("train")
    by_timestep: dict[int, list[int]] = defaultdict(list)
    for image, timestep in enumerate(split.timesteps.tolist()):
        by_timestep[timestep].append(image)
    timesteps = sorted(timestep for timestep, images in by_timestep.items() if len(images) > 1)
    values: list[tuple[float, float]] = []
    for index in spread(len(timesteps), NUM_TIMESTEPS) if timesteps else []:
        images = by_timestep[timesteps[index]]
        cameras = split.cameras[torch.as_tensor(images)]
        order = order_around_head(cameras.camera_to_worlds.cpu().numpy(), [0] * len(images))
        views = [split.cameras[images[i] : images[i] + 1] for i in order]
        surface_points = [maps.canonical_of(view) for view in views]
        matches = {
            (a, b): PixelMatches.between(surface_points[a], surface_points[b])
            for a, b in pairwise(range(len(views)))
            if surface_points[a].shape == surface_points[b].shape
        }
        renders = [[run.render(view).rgb for view in views] for run in (edited, base)]
        values.append((view_disagreement(renders[0], matches), view_disagreement(renders[1], matches)))
        tick()
    return Figure(mean([value[0] for value in values]), mean([value[1] for value in values]))


def frames_per_second(run: TrainedRun) -> float:
    """Renders per second of the held-out camera at the capture's resolution, with posing and the copy to main memory.

    One over the median time of renders spread over the motion, on the run's device.
    """
    from edit3dgs_ns.runs.trained_run import moved_camera

    camera, seconds = front_camera(run), []
    for number, time_ in enumerate(np.linspace(0, 1, _TIMED + 3)):
        view = moved_camera(camera, time=float(time_))
        start = time.perf_counter()
        run.render(view)
        if number >= 3:
            seconds.append(time.perf_counter() - start)
    return 1 / float(np.median(seconds))


def _count(run: TrainedRun) -> float:
    return float(run.pipeline.model.num_points)


def _megabytes(run: TrainedRun) -> float:
    """Size of the Gaussians' parameters; the head's motion and the head model are not counted."""
    return sum(p.numel() * p.element_size() for p in run.pipeline.model.gauss_params.values()) / 1e6
