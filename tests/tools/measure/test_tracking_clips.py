"""Figures of real clips."""

from __future__ import annotations

import numpy as np
import pytest

from tools.measure.tracking.landmark_series import FaceSeries
from tools.measure.tracking_clips import held_out_figures


def test_a_mouth_that_stays_shut_has_an_error_and_no_correlation() -> None:
    """The detector flickers by a thousandth of the distance between the eyes; the lids blink, and once no face is found."""
    rng = np.random.default_rng(0)
    blink = 0.08 * (np.arange(20) % 10 > 2)
    real = FaceSeries(0.001 * rng.random(20), blink)
    rendered = FaceSeries(0.02 + 0.001 * rng.random(20), blink + 0.01)
    rendered.lids[4] = np.nan
    row = held_out_figures(rendered, real)
    assert row["held_out_mouth_correlation"] is None
    assert row["held_out_mouth_range_percent"] < 0.1
    assert row["held_out_mouth_error_percent"] == pytest.approx(2, abs=0.1)
    assert row["held_out_lid_correlation"] == pytest.approx(1)
    assert row["held_out_lid_range_percent"] == pytest.approx(8)
    assert row["held_out_lid_error_percent"] == pytest.approx(1)


def test_without_a_face_there_are_no_figures() -> None:
    nothing, real = (FaceSeries(np.full(9, value), np.full(9, value)) for value in (np.nan, 0.1))
    row = held_out_figures(nothing, real)
    assert row["held_out_mouth_correlation"] is None and row["held_out_mouth_error_percent"] is None
