"""Figures of a whole run: whether its views agree, how large and fast the avatar is, and what the edit cost."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from edit3dgs_ns.editing.agreement.key_views import order_around_head
from edit3dgs_ns.evaluation.report_data import Figure, mean
from edit3dgs_ns.evaluation.same_spot import SameSpots, view_disagreement
from edit3dgs_ns.rendering.views import front_camera
from edit3dgs_ns.run_evaluation.runs import EditedRun
from edit3dgs_ns.run_evaluation.truth import spread
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.training.surface_maps import AvatarMaps

MOMENTS = 3
"""Moments of the training motion at which views are compared."""
_TIMED = 15
"""Renders that are timed, after three that are not."""


def whole_figures(
    run: EditedRun, base: TrainedRun, edited: TrainedRun, tick: Callable[[], None] = lambda: None
) -> dict[str, Figure]:
    """Everything that belongs to no single setting."""
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
    by_moment: dict[int, list[int]] = defaultdict(list)
    for image, moment in enumerate(split.timesteps.tolist()):
        by_moment[moment].append(image)
    moments = sorted(moment for moment, images in by_moment.items() if len(images) > 1)
    values: list[tuple[float, float]] = []
    for place in spread(len(moments), MOMENTS) if moments else []:
        images = by_moment[moments[place]]
        cameras = split.cameras[torch.as_tensor(images)]
        order = order_around_head(cameras.camera_to_worlds.cpu().numpy(), [0] * len(images))
        shots = [split.cameras[images[i] : images[i] + 1] for i in order]
        places = [maps.canonical_of(shot) for shot in shots]
        spots = {
            (a, b): SameSpots.between(places[a], places[b])
            for a, b in pairwise(range(len(shots)))
            if places[a].shape == places[b].shape
        }
        renders = [[run.render(shot).rgb for shot in shots] for run in (edited, base)]
        values.append((view_disagreement(renders[0], spots), view_disagreement(renders[1], spots)))
        tick()
    return Figure(mean([value[0] for value in values]), mean([value[1] for value in values]))


def frames_per_second(run: TrainedRun) -> float:
    """Renders a second of the held-out camera at the capture's resolution: posing, drawing, and the copy to main memory.

    One over the median of some renders at places spread over the motion; on the device that the run is on.
    """
    from edit3dgs_ns.runs.trained_run import moved_camera

    camera, seconds = front_camera(run), []
    for number, place in enumerate(np.linspace(0, 1, _TIMED + 3)):
        shot = moved_camera(camera, time=float(place))
        start = time.perf_counter()
        run.render(shot)
        if number >= 3:
            seconds.append(time.perf_counter() - start)
    return 1 / float(np.median(seconds))


def _count(run: TrainedRun) -> float:
    return float(run.pipeline.model.num_points)


def _megabytes(run: TrainedRun) -> float:
    """Of the Gaussians and what colours them; the head's motion and the head model are not the avatar's own."""
    return sum(p.numel() * p.element_size() for p in run.pipeline.model.gauss_params.values()) / 1e6
