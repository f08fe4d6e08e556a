"""A small, fixed part of `make fuzz`: no reader ends in anything but its own message, and what is read is sound."""

from __future__ import annotations

import pytest

from tools.measure.fuzz.__main__ import try_reader
from tools.measure.fuzz.readers import Reader, readers

INPUTS = 25


@pytest.mark.parametrize("reader", readers(), ids=lambda reader: reader.name)
def test_spoilt_files_are_refused_or_read_soundly(reader: Reader) -> None:
    outcome = try_reader(reader, INPUTS, number=1)
    assert not outcome.tracebacks and not outcome.silent
    assert outcome.refused > 0
