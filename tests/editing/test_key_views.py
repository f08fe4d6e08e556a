"""Which views are key views: sorted around the head, one of every run, all in their turn."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edit3dgs_ns.editing.agreement.key_views import draw_key_views, order_around_head, runs_of


def _camera(azimuth, elevation=0.0, distance=1.0):
    """Looks at the origin from an angle (radians; 0 is the front, y is up)."""
    back = np.array(
        [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    )
    right = np.cross([0, 1, 0], back)
    right /= np.linalg.norm(right)
    c2w = np.eye(4, dtype=np.float32)
    c2w[:3] = np.stack([right, np.cross(back, right), back, distance * back], axis=1)
    return c2w


@given(st.permutations(range(9)), st.floats(0.5, 3))
def test_cameras_are_sorted_around_the_head(order, distance):
    angles = np.linspace(-3, 3, 9)
    c2w = np.stack([_camera(angles[place], 0.2, distance) for place in order])
    assert [order[view] for view in order_around_head(c2w, (0,) * 9)] == list(range(9))


def test_one_camera_at_several_timesteps_is_sorted_by_time():
    c2w = np.stack([_camera(0.5), _camera(-0.5), _camera(0.5), _camera(-0.5)])
    assert order_around_head(c2w, (7, 7, 3, 3)) == (3, 1, 2, 0)


def test_without_cameras_the_order_stays():
    assert order_around_head(None, (0, 0, 0)) == (0, 1, 2)


@given(st.integers(1, 40), st.integers(1, 12))
def test_runs_are_neighbours_and_nearly_equal_and_of_three_views_two_at_least(views, views_per_key):
    order = tuple(reversed(range(views)))
    runs = runs_of(order, views_per_key)
    assert sum(runs, ()) == order
    assert len(runs) == max(-(-views // views_per_key), 2 if views >= 3 else 1)
    lengths = {len(run) for run in runs}
    assert max(lengths) <= views_per_key and max(lengths) - min(lengths) <= 1


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 1000))
def test_every_view_of_a_run_has_its_turn(views, views_per_key, seed):
    runs = runs_of(tuple(range(views)), views_per_key)
    drawn = [draw_key_views(runs, seed, step) for step in range(200)]
    assert all(sum(key in run for key in keys) == 1 for keys in drawn for run in runs)
    assert set().union(*drawn) == set(range(views))
    assert drawn[3] == draw_key_views(runs, seed, 3)


def test_anchors_are_key_views_at_every_step_beside_one_of_every_run_of_the_others():
    runs = runs_of((4, 2, 0, 1, 3), 2, anchors=(0, 3))
    assert runs == [(4,), (2, 1), (0,), (3,)]
    for step in range(20):
        keys = draw_key_views(runs, seed=0, step=step)
        assert {0, 3, 4} < set(keys) and len(keys) == 4
