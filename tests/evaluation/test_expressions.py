"""The moments that are shown differ, and are named by what the face does."""

from __future__ import annotations

import numpy as np

from edit3dgs_ns.evaluation.expressions import describe, most_different

NAMES = ("eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "mouthSmileRight", "browInnerUp")
CLOSED, OPEN = np.zeros(3), np.array([0.3, 0.0, 0.0])


def test_most_different_picks_one_of_each_cluster() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10], [7, 7]])
    points = np.repeat(centres, 5, axis=0) + rng.normal(0, 0.1, (20, 2))
    chosen = most_different(points, 4, first=2)
    assert chosen[0] == 2
    assert sorted(index // 5 for index in chosen) == [0, 1, 2, 3]


def test_most_different_stops_at_the_last_distinct_row() -> None:
    assert most_different(np.array([[0.0], [0.0], [1.0]]), 5, first=0) == [0, 2]


def test_both_sides_of_the_face_are_one_word() -> None:
    assert describe(np.array([0.9, 0.8, 0, 0, 0]), CLOSED, NAMES) == "eyes closed"


def test_the_jaw_comes_first_and_weak_actions_are_left_out() -> None:
    assert describe(np.array([0.1, 0, 0.6, 0, 0.9]), OPEN, NAMES) == "mouth open, brows raised"
    assert describe(np.array([0.1, 0, 0.2, 0, 0]), CLOSED, NAMES) == "calm"


def test_without_names_only_the_jaw_is_described() -> None:
    assert describe(np.array([0.9, 0.8]), OPEN, None) == "mouth open"
