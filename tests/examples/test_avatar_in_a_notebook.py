"""The example script runs as it stands, on a small avatar of the embedded head, and its pictures show what they should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edit3dgs_ns.api import Avatar
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.synthetic.quick_avatar import quick_avatar

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "avatar_in_a_notebook.py"


@pytest.mark.slow
def test_the_example_runs_without_nerfstudio_and_writes_its_pictures(tmp_path: Path) -> None:
    small = Avatar(quick_avatar(size=48, cameras=2, frames=2, steps=20), load_assets(OPEN_HEAD_PATH))
    small.save(tmp_path / "small.ckpt")
    options = ["--avatar", tmp_path / "small.ckpt", "--output", tmp_path, "--size", 64, "--fit-steps", 20]
    code = (
        "import runpy, sys; sys.modules['nerfstudio'] = None\n"
        f"sys.argv = ['example', *{list(map(str, options))!r}]\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert _picture(tmp_path / "views.png").shape == (64, 4 * 64, 3)
    assert _picture(tmp_path / "poses.png").shape == (64, 3 * 64, 3)
    frames = np.split(_picture(tmp_path / "motion.png"), 4, axis=1)
    assert np.abs(frames[0] - frames[3]).max() > 0.05  # the mouth opens
    before, edited, fitted = np.split(_picture(tmp_path / "edit.png"), 3, axis=0)
    assert np.abs(edited - before).mean() > 0.02
    assert np.abs(fitted - edited).mean() < 0.9 * np.abs(before - edited).mean()
    assert len(Avatar.load(tmp_path / "edited.ckpt")) == len(small)
    assert (tmp_path / "edited.ply").is_file()


def _picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), np.float32) / 255
