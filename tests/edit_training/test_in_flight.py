"""Several rounds edited together: which are in flight at once, what each waits for, and that their images stay the same."""

from __future__ import annotations

import itertools
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edit3dgs_ns.edit_training import in_flight
from edit3dgs_ns.edit_training.history import History
from edit3dgs_ns.edit_training.in_flight import InFlight, Stopped
from edit3dgs_ns.edit_training.plan import RunPlan
from edit3dgs_ns.edit_training.rounds import EditRounds
from edit3dgs_ns.editing.editor import EditRequest, EditResult
from edit3dgs_ns.editing.schedule import Batch
from edit3dgs_ns.editing.store import EditStore
from edit3dgs_ns.editing.thread_safe_editor import ThreadSafeEditor
from edit3dgs_ns.errors import UserError
from tests.edit_runs import same_run, train

PATIENCE = 20.0
"""Seconds after which a thread that waits for another one gives up: the test fails then."""


def batches(count: int) -> list[Batch]:
    """Rounds of two views each."""
    return [Batch(number, (2 * number, 2 * number + 1), (number, number), 0.5, 0) for number in range(count)]


class Studio:
    """Rounds of edits without an avatar: views are grey, and what the editor does with a round is a function of it.

    Args:
        folder: gets the store and the history.
        edit: called with a round's number while the editor has it; returns the grey level of its edits.
        at_once: requests that the editor takes.
        options: of the rounds.
    """

    def __init__(self, folder, edit, at_once=1, **options):
        self.made, self.anchors = [threading.Event() for _ in range(8)], {}
        self.editor = ThreadSafeEditor(
            SimpleNamespace(edit=self._edit, views_depend=True, settings={}, requests_at_once=at_once)
        )
        self._level = edit
        self.store = EditStore(folder / "edits", {})
        self.history = History(folder / "edit_history.json", "darker", 8, 0, {})
        cameras = SimpleNamespace(height=torch.full((16,), 8), width=torch.full((16,), 8))
        poses = SimpleNamespace(camera_to_worlds=torch.eye(4)[None, :3].expand(16, 3, 4))
        datamanager = SimpleNamespace(
            train_dataset=SimpleNamespace(cameras=cameras), device="cpu", replaced_indices=list,
            replace_image=lambda view, image: None, restrict_to=lambda views: None,
            train_camera=lambda views: SimpleNamespace(camera_to_worlds=poses.camera_to_worlds[: len(views)]),
        )  # fmt: skip
        options = {"judge": False, **options}
        maker = SimpleNamespace(make=self._make)
        self.rounds = EditRounds(
            datamanager, maker, self.editor, self.store, self.history, rounds=8, **options
        )
        self.rounds._show = lambda batch, step: None

    def _make(self, batch, views, anchors=None):
        anchors = anchors or {}
        self.anchors[batch.round] = list(anchors)
        self.made[batch.round].set()
        views = [*views, *anchors]
        images = np.full((len(views), 8, 8, 3), 0.5, np.float32)
        images[:, 2:6, 2:6] = 0.8
        places = tuple(range(len(views) - len(anchors), len(views)))
        times = (batch.round,) * len(views)
        return EditRequest("darker", images, images, view_ids=tuple(views), anchors=places, timesteps=times)

    def _edit(self, request, progress, finished):
        progress(1, 2)
        level = self._level(request.timesteps[0])
        return EditResult(np.full_like(request.images, level))


def test_rounds_are_edited_at_the_same_time_as_far_as_the_editor_takes_several_requests(tmp_path):
    """Each waits until the other is in the editor too."""
    both = threading.Barrier(2, timeout=PATIENCE)
    studio = Studio(tmp_path, lambda number: 0.25 + 0 * both.wait(), at_once=2)
    begun = time.perf_counter()
    studio.rounds.run(batches(2), 7)
    taken = time.perf_counter() - begun
    assert [key.view for key in studio.store.edits()] == [0, 1, 2, 3]
    records = studio.history.batches
    assert [(record["round"], record["step"]) for record in records] == [(0, 7), (1, 7)]
    assert sum(record["seconds"] for record in records) <= taken + 0.02


def test_one_editor_gets_one_request_and_the_next_is_made_meanwhile(tmp_path):
    inside = threading.Lock()

    def edit(number):
        assert inside.acquire(blocking=False)
        others = [event for event in studio.made[:2] if not event.is_set()]
        assert all(event.wait(PATIENCE) for event in others)
        inside.release()
        return 0.25

    studio = Studio(tmp_path, edit)
    studio.rounds.run(batches(3), 0)
    assert len(studio.store) == 6


@pytest.mark.parametrize("waits_for", ["anchors", "keep auto"])
def test_rounds_wait_for_the_first_where_it_decides_what_they_look_like(tmp_path, waits_for):
    decision = SimpleNamespace(is_open=waits_for == "keep auto", record=lambda: None)

    def settle(request, verdicts):
        decision.is_open = False
        return verdicts

    decision.settle = settle
    others = threading.Barrier(2, timeout=PATIENCE)

    def edit(number):
        if number > 0:
            assert len(studio.store) == 2
            others.wait()
        else:
            assert not any(event.is_set() for event in studio.made[1:])
        return 0.25

    anchors = 1 if waits_for == "anchors" else 0
    studio = Studio(tmp_path, edit, at_once=3, anchors=anchors, decision=decision)
    studio.rounds.run(batches(3), 0)
    assert len(studio.store) == 6
    assert {number: len(views) for number, views in studio.anchors.items()} == {0: 0, 1: anchors, 2: anchors}


def test_a_round_that_fails_lets_the_others_in_flight_be_stored_and_begins_no_more(tmp_path):
    entered = []

    def edit(number):
        entered.append(number)
        if len(entered) == 1:
            assert all(event.wait(PATIENCE) for event in studio.made[:2])
            raise ValueError("the device is on fire")
        return 0.25

    studio = Studio(tmp_path, edit)
    with pytest.raises(ValueError, match="on fire"):
        studio.rounds.run(batches(4), 0)
    stored = 1 - entered[0]
    assert {key.round for key in studio.store.edits()} == {stored}
    assert not any(event.is_set() for event in studio.made[2:])
    studio._level = lambda number: 0.5 if number != stored else pytest.fail("edited twice")
    studio.rounds.run(batches(4), 0)
    assert len(studio.store) == 8


@pytest.mark.parametrize("refused", [{1}, {0, 1}])
def test_a_round_without_a_good_view_is_named_and_others_are_trained_on(tmp_path, refused, capsys):
    studio = Studio(
        tmp_path, lambda number: 0.0 if number in refused else 0.25, at_once=2, judge=True, retries=0
    )
    level = studio._level

    def edit(request, progress, finished):
        dark = level(request.timesteps[0]) == 0
        return EditResult(
            np.zeros_like(request.images) if dark else request.images * np.float32([1, 0.5, 0.5])
        )

    studio.editor.inner.edit = edit
    if refused == {0, 1}:
        with pytest.raises(UserError, match=r"(?s)round 1/8.*round 2/8.*Nothing is left to train on"):
            studio.rounds.run(batches(2), 0)
        assert studio.history.batches == []
        return
    studio.rounds.run(batches(2), 0)
    assert {key.round for key in studio.store.edits()} == {0}
    assert [len(record["judged"]["left_out"]) for record in studio.history.batches] == [0, 2]


def test_whoever_stops_waiting_stops_the_tasks(monkeypatch):
    flight, ended = InFlight(2), []
    running = threading.Barrier(3, timeout=PATIENCE)

    def task():
        running.wait()
        try:
            while True:
                flight.check()
                time.sleep(0.001)
        except Stopped:
            ended.append(threading.get_ident())
            raise

    def interrupted(futures, return_when):
        running.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(in_flight, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        flight.run([task, task, lambda: pytest.fail("begun after the end")])
    assert len(ended) == 2


@pytest.mark.parametrize("at_once", [1, 2, 3, 50])
def test_every_round_is_edited_once_and_steps_stay_as_many(at_once):
    plan = RunPlan(10, 7, 5, 3, rounds_at_once=at_once)
    assert plan.total_steps == RunPlan(10, 7, 5, 3).total_steps
    done, number = {}, 0
    for step in range(10, plan.total_steps):
        if plan.begins_round(step, number):
            together = plan.edited_with(number)
            done |= dict.fromkeys(together, step)
            number = together.stop
    assert done == {n: 10 + 5 * (n - n % at_once) for n in range(7)}


def test_a_run_is_the_same_however_many_requests_the_editor_takes_at_once(make_config, monkeypatch):
    from edit3dgs_ns.edit_training.pipeline import EditPipeline

    load, calls, both = EditPipeline._load_editor, itertools.count(), threading.Barrier(2, timeout=PATIENCE)

    class Several:
        """Two editors for two threads. The third and the fourth round, which wait for none, are in them together."""

        requests_at_once = 2

        def __init__(self, editors):
            self._editors, self.settings, self.views_depend = editors, editors[0].settings, True

        def edit(self, request, progress=None, finished=None):
            editor = self._editors.pop()
            if next(calls) in (2, 3):
                both.wait()
            try:
                return editor.edit(request, progress, finished)
            finally:
                self._editors.append(editor)

    options = {"rounds": 5, "rounds_at_once": 2, "anchors": 1, "correspondence": "rig"}
    one = train(make_config(**options))
    monkeypatch.setattr(EditPipeline, "_load_editor", lambda self: Several([load(self), load(self)]))
    two = train(make_config(**options))
    same_run(two.base_dir, one.base_dir)
    steps = [batch["step"] for batch in one.pipeline._loop.rounds.history.batches]
    assert steps == [0, 0, 4, 4, 8]


def test_a_run_is_not_resumed_with_another_number_of_rounds_at_once(make_config):
    run = train(make_config(rounds=2, rounds_at_once=2))
    with pytest.raises(UserError, match="rounds_at_once 2, this one 1"):
        train(make_config(rounds=2, load_dir=run.base_dir))
    more = train(make_config(rounds=5, rounds_at_once=2, load_dir=run.base_dir))
    assert len(more.pipeline._loop.rounds.history.batches) == 5 and more.pipeline.schedule.finished


def test_an_edit_computes_with_the_same_number_of_threads_wherever_it_is_asked_for():
    """Numba's kernels change the number in the thread that renders."""
    before, seen = torch.get_num_threads(), []
    editor = ThreadSafeEditor(
        SimpleNamespace(edit=lambda *_: seen.append(torch.get_num_threads()), views_depend=True, settings={})
    )
    for number in (before, before + 1):
        torch.set_num_threads(number)
        try:
            editor.edit(None)
            threads = [threading.Thread(target=editor.edit, args=(None,))]
            threads[0].start()
            threads[0].join()
            assert torch.get_num_threads() == number
        finally:
            torch.set_num_threads(before)
    assert seen == [before] * 4
