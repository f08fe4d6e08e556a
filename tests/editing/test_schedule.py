"""Whose turn it is: everyone's, once a turn, the same after a stop."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edit3dgs_ns.editing.schedule import EditSchedule

VIEWS = {t: [10 * t + camera for camera in range(5)] for t in range(4)}


def _schedule(**options) -> EditSchedule:
    return EditSchedule(**({"views_by_timestep": VIEWS, "rounds": 12, "views_per_edit": 2} | options))


@given(order=st.sampled_from(["random", "sequential"]), seed=st.integers(0, 99), timesteps=st.integers(1, 7))
def test_every_timestep_once_a_turn(order, seed, timesteps):
    views = {t: [t] for t in range(timesteps)}
    schedule = EditSchedule(views, rounds=3 * timesteps, views_per_edit=1, order=order, seed=seed)
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
    order=st.sampled_from(["random", "sequential"]),
)  # fmt: skip
def test_a_batch_may_span_timesteps(timesteps, together, cameras, count, order):
    views = {t: [10 * t + camera for camera in range(cameras)] for t in range(timesteps)}
    schedule = EditSchedule(
        views, rounds=2 * timesteps, views_per_edit=count, timesteps_per_edit=together, order=order
    )
    batches = [schedule.batch(r) for r in range(2 * timesteps)]
    for batch in batches:
        assert list(batch.views) == sorted(set(batch.views))
        assert batch.timesteps == tuple(view // 10 for view in batch.views)
    # Every timestep has its turn before any comes again, whichever rounds that falls into.
    first = [t for batch in batches for t in dict.fromkeys(batch.timesteps)]
    if timesteps % min(together, timesteps) == 0:
        assert sorted(first[:timesteps]) == list(range(timesteps))
        assert all(len(set(batch.timesteps)) == min(together, timesteps) for batch in batches)


def test_noise_falls_from_first_to_last():
    schedule = _schedule(noise_first=0.98, noise_last=0.3)
    noise = [schedule.batch(r).noise for r in range(12)]
    assert noise[0] == pytest.approx(0.98) and noise[-1] == pytest.approx(0.3)
    assert noise == sorted(noise, reverse=True)
    assert _schedule(rounds=1).batch(0).noise == pytest.approx(0.98)


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
    "option", [{"seed": 1}, {"order": "sequential"}, {"views_per_edit": 3}, {"timesteps_per_edit": 2}]
)
def test_another_schedule_is_not_resumed(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        _schedule(**option).load_state_dict(_schedule().state_dict())


def test_few_rounds_in_order_spread_over_the_motion():
    schedule = EditSchedule({t: [t] for t in range(100)}, rounds=5, views_per_edit=1, order="sequential")
    assert [schedule.batch(r).timesteps[0] for r in range(5)] == [0, 20, 40, 60, 80]


def test_seeds():
    assert {_schedule(seed=4).batch(r).seed for r in range(12)} == {4}
    assert len({_schedule(seed=4, new_noise=True).batch(r).seed for r in range(12)}) == 12


@pytest.mark.parametrize(
    "options",
    [
        {"rounds": 0},
        {"views_per_edit": 0},
        {"timesteps_per_edit": 0},
        {"noise_first": 0.2, "noise_last": 0.3},
        {"noise_last": 0.0},
        {"views_by_timestep": {}},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError):
        _schedule(**options)
