"""The progress of rounds of edits, where there is no terminal: lines on stderr, and the time left."""

from __future__ import annotations

import pytest

from edit3dgs_ns.console import progress_bars
from edit3dgs_ns.edit_training import progress as rounds_progress
from edit3dgs_ns.edit_training.progress import RoundBar, RoundClock
from edit3dgs_ns.editing.schedule import Batch


def _batch(number: int, *timesteps: int) -> Batch:
    return Batch(round=number, views=tuple(range(len(timesteps))), timesteps=timesteps, noise=0.5, seed=0)


def test_a_line_begins_and_ends_each_round(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(rounds_progress.time, "perf_counter", lambda: now[0])
    clock = RoundClock(4)
    for batch in (_batch(0, 7, 7), _batch(1, 7, 9)):
        clock.begin(batch.round)
        with progress_bars(seconds=1000) as progress:
            bar = RoundBar(progress, clock, {batch: 2})
            bar.update(batch, 1, 2)
            bar.finish(batch, 2)
        now[0] += 30
    lines = [line.removesuffix(" ...").split(", done in")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "Round 1/4, timestep 7, 0 of 2",
        "Round 1/4, timestep 7 (rounds: 0 s left), 2 of 2",
        "Round 2/4, 2 timesteps (rounds: 1 min 30 s left), 0 of 2",
        "Round 2/4, 2 timesteps (rounds: 50 s left), 2 of 2",
    ]


@pytest.mark.parametrize("first", [0, 5])
def test_the_time_left_counts_the_rounds_of_this_process_alone(monkeypatch, first):
    """A resumed run has taken no time for the rounds before; half of a round's time is editing, half is fitting."""
    now = [0.0]
    monkeypatch.setattr(rounds_progress.time, "perf_counter", lambda: now[0])
    clock = RoundClock(first + 4)
    clock.begin(first)
    now[0] = 20.0
    clock.begin(first + 1)
    assert clock.left(first + 1, 0.0) == pytest.approx(60.0)
    now[0] = 30.0
    assert clock.left(first + 1, 1.0) == pytest.approx(50.0)


def test_the_first_rounds_time_is_estimated_from_its_first_views(monkeypatch):
    """Editing alone: nothing has been fitted yet."""
    now = [0.0]
    monkeypatch.setattr(rounds_progress.time, "perf_counter", lambda: now[0])
    clock = RoundClock(10)
    clock.begin(0)
    now[0] = 10.0
    assert clock.left(0, 0.1) is None
    assert clock.left(0, 0.5) == pytest.approx(10.0 / 0.5 * 9.5)
