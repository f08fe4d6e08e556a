"""Small renders shared by the tests of synthetic heads."""

from __future__ import annotations

from pathlib import Path

import pytest

from edit3dgs_ns.synthetic.replay import Replay
from edit3dgs_ns.synthetic.settings import CaptureSettings
from edit3dgs_ns.synthetic.writer import write_capture

TINY = {"seed": 3, "width": 48, "height": 56, "cameras": 3, "frames": 2, "samples": 2}


@pytest.fixture(scope="session")
def replay() -> Replay:
    """A person at a size where eyes and teeth are some pixels."""
    return Replay(CaptureSettings(seed=2, width=160, height=160, cameras=3, frames=3, samples=4))


@pytest.fixture(scope="session")
def written_capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole capture on disk, as small as can be."""
    out = tmp_path_factory.mktemp("capture") / "data"
    write_capture(out, **TINY, workers=1)
    return out
