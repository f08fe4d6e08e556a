"""Grids of originals over edits, and the progress of the rounds with the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping

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

    def left(self, number: int, share: float, together: int = 1) -> float | None:
        """Seconds left, or None during the first rounds, before it is known.

        Args:
            number: the round that is edited.
            share: of its editing that is done.
            together: rounds from this one on that are edited together, of which `share` is done.
        """
        done, edited = number - (self._first or 0), share * together
        if done < 1:
            if share < _ENOUGH:
                return None
            # What fitting takes is not known yet: all rounds' editing.
            return (time.perf_counter() - self._started) / edited * (self.rounds - number - edited)
        per_round = (time.perf_counter() - self._started) / (done + 0.5 * edited)
        return per_round * (self.rounds - number - 0.5 * edited)


class RoundBar:
    """The progress of the rounds that are edited together: their numbers, their views, and the time left for all rounds.

    Args:
        progress: shows it.
        clock: of all rounds.
        views: how many views of each of these rounds are to be edited.
    """

    def __init__(self, progress: Progress, clock: RoundClock, views: Mapping[Batch, int]):
        self._progress, self._clock, self._views = progress, clock, dict(views)
        self._before = dict.fromkeys(views, 0)
        self._running = dict.fromkeys(views, 0.0)
        first, *more = (batch.round for batch in views)
        self._round, self._together = first, 1 + len(more)
        times = sorted({timestep for batch in views for timestep in batch.timesteps})
        when = f"timestep {times[0]}" if len(times) == 1 else f"{len(times)} timesteps"
        numbers = f"Rounds {first + 1}-{more[-1] + 1}" if more else f"Round {first + 1}"
        self._label = f"{numbers}/{clock.rounds}, {when}"
        self._task = progress.add_task(self._describe(0.0), total=sum(self._views.values()))

    def update(self, batch: Batch, done: int, total: int) -> None:
        """Shows the denoising steps done for the views of a round that are being edited."""
        self._running[batch] = done / total * (self._views[batch] - self._before[batch])
        self._show()

    def finish(self, batch: Batch, views: int) -> None:
        """Counts views as edited and stored."""
        self._before[batch] += views
        self._running[batch] = 0.0
        self._show()

    def _show(self) -> None:
        views = sum(self._before.values()) + sum(self._running.values())
        share = views / sum(self._views.values())
        self._progress.update(self._task, completed=views, description=self._describe(share))

    def _describe(self, share: float) -> str:
        left = self._clock.left(self._round, share, self._together)
        return self._label if left is None else f"{self._label} (rounds: {duration(left)} left)"
