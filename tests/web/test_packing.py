"""Arrays come back from a page's bytes as finely as they were stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edit3dgs_ns.web.packing import Quantised, indices, pack, quantise, unpack

NUMBERS = st.floats(-1e6, 1e6, width=32)
SHAPES = array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)


@given(arrays(np.float64, SHAPES, elements=NUMBERS), st.floats(1e-6, 1.0), st.booleans())
def test_numbers_come_back_within_half_a_step(values: np.ndarray, step: float, differences: bool) -> None:
    stored = quantise(values, step, differences=differences)
    found, facts = unpack(pack({"values": stored}, {"fps": 25.0}))
    assert facts == {"fps": 25.0} and list(found) == ["values"]
    back = found["values"]
    assert back.values.dtype == np.int16 and back.step == stored.step >= step
    # No coarser than asked for, unless 16 bits do not reach.
    assert stored.step == step or stored.step * 32767 <= np.abs(values).max() * (1 + 1e-9)
    np.testing.assert_allclose(back.restored(), values, rtol=0, atol=stored.step / 2 * (1 + 1e-9))


@given(arrays(np.int16, SHAPES), arrays(np.uint32, SHAPES))
def test_whole_numbers_come_back_exactly(small: np.ndarray, large: np.ndarray) -> None:
    """Differences wrap: the full range of int16 is no trouble."""
    given = {"small": Quantised(small, 0.5, differences=True), "large": indices(large)}
    found, _ = unpack(pack(given, {}))
    for name, array in given.items():
        assert found[name].values.dtype == array.values.dtype and found[name].step == array.step
        np.testing.assert_array_equal(found[name].values, array.values)


def test_slow_motion_is_small_and_the_same_bytes_every_time() -> None:
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, (500, 3))
    motion = 0.01 * np.sin(np.arange(50)[:, None, None] / 16 + phase)

    def packed(differences: bool) -> bytes:
        return pack({"motion": quantise(motion, 2e-5, differences=differences)}, {})

    assert packed(True) == packed(True)
    assert len(packed(True)) < 0.8 * len(packed(False)) and len(packed(True)) < 0.6 * 2 * motion.size


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        quantise(np.array([0.0, bad]), 1e-3)
