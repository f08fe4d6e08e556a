"""Shared by all tests: one tiny capture per session."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.tiny_capture import TinyCapture, write_tiny_capture

# How long an example takes says nothing on a machine that does other work too.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def tiny_capture(tmp_path_factory: pytest.TempPathFactory) -> TinyCapture:
    """48 x 48 pixels, 4 cameras, 3 sequences of 3 timesteps (the last one unseen). Read only: copy it to change it."""
    root: Path = tmp_path_factory.mktemp("tiny_capture")
    return write_tiny_capture(root)
