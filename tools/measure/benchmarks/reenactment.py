"""A reenactment video of an avatar of 86,000 Gaussians, 802 x 550 pixels: how near it comes to the bare rasterizer's frame rate.

The video is made as `edit3dgs reenact` makes it: for every frame expression and pose, FLAME, binding, rasterization; pixels,
H.264 and the file on another thread. `bare` is what rasterizing the same frames alone takes, with everything that comes before
it done outside of the clock. `fps_ratio` is the video's frame rate as a share of that.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from tools.measure.benchmarks import common
from tools.measure.benchmarks.avatar_frame import GAUSSIANS, HEIGHT, WIDTH, cameras_around, make_model

FRAMES = 50
ROUNDS = 3


class _Run:
    """What `film` needs of a finished run."""

    def __init__(self, model: Any):
        self._model = model

    def colours(self, cameras: Any) -> np.ndarray:
        """As TrainedRun's."""
        from edit3dgs_ns.runs.trained_run import colours

        return colours(self._model, cameras)


def measure(
    console: Console, threads: int, gaussians: int = GAUSSIANS, frames: int = FRAMES
) -> dict[str, Any]:
    """The section `reenactment`; the table shows both frame rates as well."""
    from edit3dgs_ns.rendering.trajectories import still
    from edit3dgs_ns.rendering.videos import render_video

    console.log(f"Reenactment: videos of {frames} frames, {gaussians:,} Gaussians")
    model = make_model(gaussians)
    trajectory = still(cameras_around(model, 1), np.linspace(0, 1, frames))
    videos, bares = [], []
    with tempfile.TemporaryDirectory() as folder, common.threads(threads), torch.no_grad():
        path = Path(folder) / "video.mp4"
        for number in range(ROUNDS + 1):
            # They take turns, so that other load on the machine hits both alike; the first round compiles and warms up.
            with Progress(console=Console(quiet=True)) as progress:
                start = time.perf_counter()
                render_video(path, [_Run(model)], trajectory, fps=25, progress=progress)
                video = time.perf_counter() - start
            bare = _bare_seconds(model, trajectory)
            if number:
                videos.append(video)
                bares.append(bare)
        size = path.stat().st_size
    video, bare = median(videos), median(bares)
    return {
        "fps_ratio": round(bare / video, 4),
        "video_fps": round(frames / video, 2),
        "bare_fps": round(frames / bare, 2),
        "video_megabytes": round(size / 1e6, 2),
        "width": WIDTH,
        "height": HEIGHT,
    }


def _bare_seconds(model: Any, trajectory: Any) -> float:
    """Rasterizing all frames, one after the other, and nothing else."""
    seconds = 0.0
    for number in range(len(trajectory)):
        cameras = trajectory.at(number)
        shown = model.shown_at(float(cameras.times[0, 0]))
        start = time.perf_counter()
        model.draw_shown(cameras, *shown)
        seconds += time.perf_counter() - start
    return seconds
