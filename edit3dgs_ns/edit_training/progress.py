"""Grids of originals over edits, and the progress of the rounds with the time left."""

from __future__ import annotations

import time

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from rich.progress import Progress

from edit3dgs_ns.console import duration
from edit3dgs_ns.editing.schedule import Batch

_WIDEST_GRID = 2048
_ENOUGH = 0.25
"""Share of the first round's editing after which the time left is estimated: one of four views, encoded and denoised."""


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
    """Estimates the time left for all rounds from those that this process has done, fitting in between included."""

    def __init__(self, rounds: int):
        self.rounds = rounds
        self._first: int | None = None
        self._started = 0.0

    def begin(self, number: int) -> None:
        """Called when round `number` begins."""
        if self._first is None:
            self._first, self._started = number, time.perf_counter()

    def left(self, number: int, share: float) -> float | None:
        """Seconds left when `share` of round `number`'s editing is done; None during the first round, before it is known."""
        done = number - (self._first or 0)
        if done < 1:
            if share < _ENOUGH:
                return None
            # What fitting takes is not known yet: all rounds' editing.
            return (time.perf_counter() - self._started) / share * (self.rounds - number - share)
        per_round = (time.perf_counter() - self._started) / (done + 0.5 * share)
        return per_round * (self.rounds - number - 0.5 * share)


class RoundBar:
    """The progress of one round: its number, its views, and the time left for all rounds."""

    def __init__(self, progress: Progress, clock: RoundClock, batch: Batch, views: int):
        self._progress, self._clock, self._batch, self._views = progress, clock, batch, views
        self._before = 0
        times = sorted(set(batch.timesteps))
        when = f"timestep {times[0]}" if len(times) == 1 else f"{len(times)} timesteps"
        self._label = f"Round {batch.round + 1}/{clock.rounds}, {when}"
        self._task = progress.add_task(self._describe(0.0), total=views)

    def update(self, done: int, total: int) -> None:
        """Shows the denoising steps done for the views that are being edited."""
        self._set(self._before + done / total * (self._views - self._before))

    def finish(self, views: int) -> None:
        """Counts views as edited and stored."""
        self._before += views
        self._set(self._before)

    def _set(self, views: float) -> None:
        self._progress.update(self._task, completed=views, description=self._describe(views / self._views))

    def _describe(self, share: float) -> str:
        left = self._clock.left(self._batch.round, share)
        return self._label if left is None else f"{self._label} (rounds: {duration(left)} left)"
