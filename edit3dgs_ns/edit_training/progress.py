"""What a user sees of the rounds: grids of originals over edits, progress, time left."""

from __future__ import annotations

import time

import numpy as np
from jaxtyping import UInt8
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from edit3dgs_ns.editing.schedule import Batch

_WIDEST_GRID = 2048


def edit_grid(
    originals: UInt8[np.ndarray, "views height width 3"], edited: UInt8[np.ndarray, "views height width 3"]
) -> UInt8[np.ndarray, "rows columns 3"]:
    """One image: the originals in a row, the edits below; shrunk if very wide."""
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in (originals, edited)], axis=0)
    if grid.shape[1] > _WIDEST_GRID:
        height = round(grid.shape[0] * _WIDEST_GRID / grid.shape[1])
        grid = np.asarray(Image.fromarray(grid).resize((_WIDEST_GRID, height), Image.Resampling.LANCZOS))
    return grid


class RoundClock:
    """Estimates the time left from the rounds that this process has done, fitting in between included."""

    def __init__(self, rounds: int):
        self._rounds = rounds
        self._first: int | None = None
        self._started = 0.0

    def begin(self, number: int) -> None:
        """Round `number` begins."""
        if self._first is None:
            self._first, self._started = number, time.perf_counter()

    def left(self, number: int, share: float) -> str:
        """Time left, `share` of round `number`'s editing being done."""
        done = number - (self._first or 0)
        if done < 1:
            return "time left after the first round"
        per_round = (time.perf_counter() - self._started) / (done + 0.5 * share)
        minutes, seconds = divmod(int(per_round * (self._rounds - number - 0.5 * share)), 60)
        return f"about {minutes}:{seconds:02d} left"


class RoundBar:
    """The progress bar of a round: which round, how many views, the time left."""

    def __init__(self, progress: Progress, clock: RoundClock, batch: Batch, views: int):
        self._progress, self._clock, self._batch, self._views = progress, clock, batch, views
        self._before = 0
        times = sorted(set(batch.timesteps))
        when = f"timestep {times[0]}" if len(times) == 1 else f"{len(times)} timesteps"
        label = f"Edit round {batch.round + 1}/{clock._rounds}, {when}"
        self._task: TaskID = progress.add_task(label, total=views, views=f"0/{views} views", left="")

    def update(self, done: int, total: int) -> None:
        """Denoising steps done for the views that are being edited."""
        self._set(self._before + done / total * (self._views - self._before))

    def finish(self, views: int) -> None:
        """These views are edited and stored."""
        self._before += views
        self._set(self._before)

    def _set(self, views: float) -> None:
        left = self._clock.left(self._batch.round, views / self._views)
        self._progress.update(
            self._task, completed=views, views=f"{int(views)}/{self._views} views", left=left
        )


def progress_bar() -> Progress:
    return Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[views]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=CONSOLE,
    )
