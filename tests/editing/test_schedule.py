"""Whose turn it is: everyone's, once a turn, the same after a stop."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edit3dgs_ns.editing.schedule import EditSchedule

VIEWS = {t: [10 * t + camera for camera in range(5)] for t in range(4)}
ORDERS = st.sampled_from(["random", "sequential", "farthest-first"])


def _expressions(timesteps: int) -> np.ndarray:
    """Places in expression space."""
    return np.random.default_rng(timesteps).normal(size=(timesteps, 3))


def _schedule(**options) -> EditSchedule:
    standard = {"views_by_timestep": VIEWS, "rounds": 12, "views_per_edit": 2, "expressions": _expressions(4)}
    return EditSchedule(**(standard | options))


@given(order=ORDERS, seed=st.integers(0, 99), timesteps=st.integers(1, 7))
def test_every_timestep_once_a_turn(order, seed, timesteps):
    views = {t: [t] for t in range(timesteps)}
    schedule = EditSchedule(
        views,
        rounds=3 * timesteps,
        views_per_edit=1,
        order=order,
        expressions=_expressions(timesteps),
        seed=seed,
    )
    seen = [schedule.batch(r).timesteps[0] for r in range(3 * timesteps)]
    for turn in range(3):
        assert sorted(seen[turn * timesteps : (turn + 1) * timesteps]) == list(range(timesteps))


@given(cameras=st.integers(1, 9), count=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_view_has_its_turn_and_none_comes_twice_in_a_batch(cameras, count, seed):
    schedule = EditSchedule({0: range(cameras)}, rounds=cameras, views_per_edit=count, seed=seed)
    batches = [schedule.batch(r).views for r in range(cameras)]
    for batch in batches:
        assert len(set(batch)) == len(batch) == min(count, cameras)
    counts = Counter(view for batch in batches for view in batch)
    assert set(counts) == set(range(cameras)) and max(counts.values()) - min(counts.values()) <= 1


@given(
    timesteps=st.integers(1, 6), together=st.integers(1, 4), cameras=st.integers(1, 4), count=st.integers(1, 5),
    order=ORDERS,
)  # fmt: skip
def test_a_batch_may_span_timesteps(timesteps, together, cameras, count, order):
    views = {t: [10 * t + camera for camera in range(cameras)] for t in range(timesteps)}
    schedule = EditSchedule(
        views,
        rounds=2 * timesteps,
        views_per_edit=count,
        timesteps_per_edit=together,
        order=order,
        expressions=_expressions(timesteps),
    )
    batches = [schedule.batch(r) for r in range(2 * timesteps)]
    for batch in batches:
        assert list(batch.views) == sorted(set(batch.views))
        assert batch.timesteps == tuple(view // 10 for view in batch.views)
    # Every timestep has its turn before any comes again, whichever rounds that falls into.
    first = [t for batch in batches for t in dict.fromkeys(batch.timesteps)]
    if timesteps % min(together, timesteps) == 0:
        assert sorted(first[:timesteps]) == list(range(timesteps))
    # None comes twice in a batch, also where it spans two turns: each of its timesteps has all its cameras.
    for batch in batches:
        assert Counter(batch.timesteps) == dict.fromkeys(batch.timesteps, min(count, cameras))
        assert len(set(batch.timesteps)) == min(together, timesteps)


@given(timesteps=st.integers(2, 9), together=st.integers(1, 6), order=ORDERS, seed=st.integers(0, 99))
def test_timesteps_are_dealt_evenly_in_batches_that_span_turns(timesteps, together, order, seed):
    """After every whole turn each timestep has come equally often."""
    rounds = 4 * timesteps
    schedule = EditSchedule(
        {t: [t] for t in range(timesteps)},
        rounds=rounds,
        views_per_edit=1,
        timesteps_per_edit=together,
        order=order,
        expressions=_expressions(timesteps),
        seed=seed,
    )
    counts: Counter[int] = Counter()
    for number in range(rounds):
        batch = schedule.batch(number).timesteps
        assert len(set(batch)) == len(batch) == min(together, timesteps)
        counts.update(batch)
        # A batch may begin the next turn: then some have come once more.
        often = [counts[t] for t in range(timesteps)]
        assert max(often) - min(often) <= 1


def test_noise_falls_from_first_to_last():
    schedule = _schedule(noise_first=0.98, noise_last=0.3)
    noise = [schedule.batch(r).noise for r in range(12)]
    assert noise[0] == pytest.approx(0.98) and noise[-1] == pytest.approx(0.3)
    assert noise == sorted(noise, reverse=True)
    assert _schedule(rounds=1).batch(0).noise == pytest.approx(0.98)


@given(
    first=st.floats(0.3, 1),
    last=st.floats(0.01, 0.3),
    resumptions=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=4),
)
def test_noise_never_rises_however_often_a_run_goes_on_with_other_rounds(first, last, resumptions):
    """Each resumption: so many rounds in all, of which some more are done before the run is stopped again."""

    def make(rounds):
        return EditSchedule(
            {0: range(4)}, rounds=rounds, views_per_edit=1, noise_first=first, noise_last=last
        )

    state, noise = None, []
    for rounds, more in resumptions:
        schedule = make(rounds)
        if state is not None:
            schedule.load_state_dict(json.loads(json.dumps(state)))
        kept = min(len(noise), rounds)
        assert [schedule.batch(number).noise for number in range(kept)] == noise[:kept]
        for _ in range(more):
            if schedule.finished:
                break
            noise.append(schedule.current.noise)
            schedule.advance()
        state = schedule.state_dict()
        rest = [schedule.batch(number).noise for number in range(schedule.round, rounds)]
        assert noise + rest == sorted(noise + rest, reverse=True)
        if rounds > 1 and rest:
            assert rest[-1] == pytest.approx(last)
        # What remains falls evenly: no jump down either.
        falls = -np.diff([*noise[-1:], *rest])
        np.testing.assert_allclose(falls, falls.mean() if len(falls) else 0, atol=1e-9)


def test_noise_of_a_finished_run_that_gets_more_rounds_stays_at_the_last_level():
    short, long = _schedule(rounds=20), _schedule(rounds=40)
    for _ in range(20):
        short.advance()
    long.load_state_dict(short.state_dict())
    assert [long.batch(r).noise for r in range(20)] == [short.batch(r).noise for r in range(20)]
    assert [long.batch(r).noise for r in range(20, 40)] == pytest.approx([0.3] * 20, abs=1e-12)


def test_a_checkpoint_that_says_nothing_of_noise_levels_is_gone_on_with():
    short, long = _schedule(rounds=20), _schedule(rounds=40)
    for _ in range(10):
        short.advance()
    state = {name: value for name, value in short.state_dict().items() if name != "noise_levels"}
    long.load_state_dict(state)
    reached = 0.98 + 9 / 19 * (0.3 - 0.98)
    assert long.batch(9).noise == pytest.approx(reached)
    assert long.batch(39).noise == pytest.approx(0.3)
    assert long.batch(10).noise == pytest.approx(reached - (reached - 0.3) / 30)


def test_resumes_where_it_stopped():
    whole = _schedule(seed=3)
    expected = []
    while not whole.finished:
        expected.append(whole.current)
        whole.advance()
    first, second = _schedule(seed=3), _schedule(seed=3)
    seen = []
    for _ in range(5):
        seen.append(first.current)
        first.advance()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    while not second.finished:
        seen.append(second.current)
        second.advance()
    assert seen == expected


@pytest.mark.parametrize(
    "option",
    [
        {"seed": 1},
        {"order": "sequential"},
        {"views_per_edit": 3},
        {"timesteps_per_edit": 2},
        {"timesteps": 2},
        {"noise_last": 0.2},
        {"noise_first": 0.9},
        {"new_noise": True},
    ],
)
def test_another_schedule_is_not_resumed(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        _schedule(**option).load_state_dict(_schedule().state_dict())


def test_few_rounds_in_order_spread_over_the_motion():
    schedule = EditSchedule({t: [t] for t in range(100)}, rounds=5, views_per_edit=1, order="sequential")
    assert [schedule.batch(r).timesteps[0] for r in range(5)] == [0, 20, 40, 60, 80]


@pytest.mark.parametrize("order", ["random", "sequential", "farthest-first"])
def test_more_rounds_go_on_with_the_same_timesteps_or_are_refused(order):
    views = {t: [t] for t in range(30)}

    def make(rounds, **options):
        return EditSchedule(
            views, rounds=rounds, views_per_edit=1, order=order, expressions=_expressions(30), **options
        )

    short, long = make(5), make(7)
    for _ in range(5):
        short.advance()
    if order == "sequential":  # even steps through the motion become shorter
        with pytest.raises(ValueError, match="rounds 5"):
            long.load_state_dict(short.state_dict())
        return
    long.load_state_dict(short.state_dict())
    assert long.round == 5
    assert [long.batch(r).views for r in range(5)] == [short.batch(r).views for r in range(5)]


@given(order=ORDERS, wanted=st.integers(1, 9), rounds=st.integers(1, 20), seed=st.integers(0, 9))
def test_only_so_many_timesteps_and_those_again_and_again(order, wanted, rounds, seed):
    schedule = EditSchedule(
        {t: [t] for t in range(7)},
        rounds=rounds,
        views_per_edit=1,
        timesteps=wanted,
        order=order,
        expressions=_expressions(7),
        seed=seed,
    )
    visits = Counter(schedule.batch(r).timesteps[0] for r in range(rounds))
    assert len(visits) == min(wanted, rounds, 7)
    assert max(visits.values()) - min(visits.values()) <= 1


def test_farthest_first_covers_a_motion_that_mostly_rests():
    """A mouth that opens in 3 of 300 timesteps is edited open among the first four; at random, hardly ever."""
    opening = np.zeros((300, 1))
    opening[[50, 51, 52], 0] = 5, 10, 5
    options = {"rounds": 4, "views_per_edit": 1, "expressions": opening}
    views = {t: [t] for t in range(300)}
    edited = {EditSchedule(views, order="farthest-first", **options).batch(r).timesteps[0] for r in range(4)}
    assert {50, 51, 52} & edited and 51 in edited and len(edited) == 4
    assert np.abs(opening - opening[sorted(edited)].T).min(axis=1).max() == 0
    at_random = {EditSchedule(views, order="random", **options).batch(r).timesteps[0] for r in range(4)}
    assert not {50, 51, 52} & at_random


@given(order=ORDERS, times=st.integers(2, 6))
def test_a_longer_capture_costs_no_more(order, times):
    def cost(timesteps):
        views = {t: [4 * t + camera for camera in range(4)] for t in range(timesteps)}
        schedule = EditSchedule(
            views, rounds=6, views_per_edit=3, order=order, expressions=_expressions(timesteps)
        )
        return [len(schedule.batch(r).views) for r in range(6)], len(schedule.views())

    assert cost(8) == cost(8 * times)


def test_the_views_of_all_rounds():
    assert _schedule(rounds=4, views_per_edit=5).views() == {
        view for views in VIEWS.values() for view in views
    }
    assert len(_schedule(rounds=3, views_per_edit=2).views()) == 6


def test_rounds_that_end_early_stay_ended_when_resumed():
    schedule = _schedule()
    for _ in range(5):
        schedule.advance()
    schedule.end()
    assert schedule.finished and schedule.due_rounds == 5
    with pytest.raises(IndexError, match="All 5 rounds"):
        _ = schedule.current
    resumed = _schedule()
    resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    assert resumed.finished and resumed.due_rounds == 5
    assert resumed.batch(4) == schedule.batch(4)


def test_seeds():
    assert {_schedule(seed=4).batch(r).seed for r in range(12)} == {4}
    assert len({_schedule(seed=4, new_noise=True).batch(r).seed for r in range(12)}) == 12


@pytest.mark.parametrize(
    "options",
    [
        {"rounds": 0},
        {"views_per_edit": 0},
        {"timesteps_per_edit": 0},
        {"timesteps": -1},
        {"order": "farthest-first", "expressions": None},
        {"noise_first": 0.2, "noise_last": 0.3},
        {"noise_last": 0.0},
        {"views_by_timestep": {}},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError):
        _schedule(**options)
