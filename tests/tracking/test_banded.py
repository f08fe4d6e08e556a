"""The banded solver against a dense one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edit3dgs_ns.tracking.banded import SequenceSystem


def random_system(
    frames: int, width: int, shared: int, seed: int
) -> tuple[SequenceSystem, np.ndarray, np.ndarray]:
    """Normal equations of random residuals, and the same as one dense matrix and right side."""
    rng = np.random.default_rng(seed)
    system = SequenceSystem.zeros(frames, width, shared)
    total = frames * width + shared
    dense, right = np.zeros((total, total)), np.zeros(total)
    for t in range(frames):
        by_frame, by_shared = rng.normal(size=(9, width)), rng.normal(size=(9, shared))
        residual = rng.normal(size=9)
        rows = np.zeros((9, total))
        rows[:, t * width : (t + 1) * width], rows[:, frames * width :] = by_frame, by_shared
        dense += rows.T @ rows
        right -= rows.T @ residual
        system.blocks[t] += by_frame.T @ by_frame
        system.border[t] += by_frame.T @ by_shared
        system.shared += by_shared.T @ by_shared
        system.right_frames[t] -= by_frame.T @ residual
        system.right_shared -= by_shared.T @ residual
    stiffness, values = rng.uniform(0.1, 5, width), rng.normal(size=(frames, width))
    system.add_smoothness(stiffness, values)
    for t in range(frames - 1):
        for k in range(width):
            row = np.zeros(total)
            row[(t + 1) * width + k], row[t * width + k] = 1, -1
            dense += stiffness[k] * np.outer(row, row)
            right -= stiffness[k] * (values[t + 1, k] - values[t, k]) * row
    # Enough to be positive definite whatever was drawn.
    system.blocks += np.eye(width)
    system.shared += np.eye(shared)
    return system, dense + np.eye(total), right


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 3), st.integers(0, 1000))
def test_it_solves_what_the_dense_matrix_says(frames: int, width: int, shared: int, seed: int) -> None:
    system, dense, right = random_system(frames, width, shared, seed)
    by_frame, by_shared = system.solve()
    expected = np.linalg.solve(dense, right)
    np.testing.assert_allclose(np.concatenate([by_frame.ravel(), by_shared]), expected, atol=1e-9)


def test_damping_is_a_share_of_the_diagonal() -> None:
    system, dense, right = random_system(4, 3, 2, seed=5)
    by_frame, by_shared = system.solve(damping=0.5)
    expected = np.linalg.solve(dense + 0.5 * np.diag(np.diag(dense)), right)
    np.testing.assert_allclose(np.concatenate([by_frame.ravel(), by_shared]), expected, atol=1e-9)


def test_a_system_that_is_not_positive_definite_is_an_error() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        SequenceSystem.zeros(3, 2, 1).solve()
