"""Few points that cover many."""

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edit3dgs_ns.editing.farthest_point_sampling import farthest_point_sampling


def _radius(points: np.ndarray, chosen) -> float:
    """How far the worst point is from its nearest chosen one."""
    return np.linalg.norm(points[:, None] - points[list(chosen)], axis=-1).min(axis=1).max()


@given(seed=st.integers(0, 10_000), number=st.integers(1, 9), count=st.integers(1, 4))
def test_no_choice_of_as_many_points_covers_more_than_twice_as_well(seed, number, count):
    points = np.random.default_rng(seed).normal(size=(number, 2))
    best = min(_radius(points, choice) for choice in combinations(range(number), min(count, number)))
    assert _radius(points, farthest_point_sampling(points, count)) <= 2 * best + 1e-9


@given(seed=st.integers(0, 10_000), number=st.integers(1, 12))
def test_more_points_begin_with_fewer_and_all_come_once(seed, number):
    # Many points are equal: an actor holds an expression.
    points = np.random.default_rng(seed).integers(0, 3, size=(number, 2)).astype(float)
    everything = farthest_point_sampling(points, number + 5)
    assert sorted(everything) == list(range(number))
    for count in range(number):
        assert farthest_point_sampling(points, count) == everything[:count]


def test_by_hand_on_a_line():
    # The mean is 3.2: nearest is 3; then 10 (7 away); then 0 (3 away); then 1 or 2, both 1 away: the lower index.
    points = np.array([0.0, 1, 2, 3, 10])[:, None]
    assert farthest_point_sampling(points, 5) == [3, 4, 0, 1, 2]


def test_a_face_that_never_moves_has_an_order_too():
    assert farthest_point_sampling(np.zeros((3, 0)), 3) == [0, 1, 2]
    assert farthest_point_sampling(np.zeros((0, 4)), 3) == []
