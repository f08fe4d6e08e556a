"""Arrays come back from a page's bytes as finely as they were stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edit3dgs_ns.web.packing import Quantised, exact, indices, pack, quantise, unpack

NUMBERS = st.floats(-1e6, 1e6, width=32)
SHAPES = array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)


@given(arrays(np.float64, SHAPES, elements=NUMBERS), st.floats(1e-6, 1.0))
def test_numbers_come_back_within_half_a_step(values: np.ndarray, step: float) -> None:
    stored = quantise(values, step)
    found, facts = unpack(pack({"values": stored}, {"fps": 25.0}))
    assert facts == {"fps": 25.0} and list(found) == ["values"]
    back = found["values"]
    assert back.values.dtype == np.int16 and back.step == stored.step >= step
    # No coarser than asked for, unless 16 bits do not reach.
    assert stored.step == step or stored.step * 32767 <= np.abs(values).max() * (1 + 1e-9)
    np.testing.assert_allclose(back.restored(), values, rtol=0, atol=stored.step / 2 * (1 + 1e-9))


@given(arrays(np.int16, SHAPES), arrays(np.uint32, SHAPES), arrays(np.float32, SHAPES, elements=NUMBERS))
def test_other_numbers_come_back_exactly(small: np.ndarray, large: np.ndarray, real: np.ndarray) -> None:
    given = {"small": Quantised(small, 0.5), "large": indices(large), "real": exact(real)}
    found, _ = unpack(pack(given, {}))
    for name, array in given.items():
        assert found[name].values.dtype == array.values.dtype and found[name].step == array.step
        np.testing.assert_array_equal(found[name].values, array.values)


def test_the_same_avatar_is_the_same_bytes() -> None:
    smooth = quantise(0.01 * np.sin(np.arange(30000) / 1000), 2e-5)
    assert pack({"smooth": smooth}, {}) == pack({"smooth": smooth}, {})
    assert len(pack({"smooth": smooth}, {})) < 0.5 * smooth.values.nbytes


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        quantise(np.array([0.0, bad]), 1e-3)
    with pytest.raises(ValueError, match="not finite"):
        exact(np.array([0.0, bad]))
