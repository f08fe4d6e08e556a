"""tools/measure/results_nersemble.sh with the real programs, on small stand-ins with made-up numbers in the official formats:
FLAME's file and masks, a capture as VHAP exports it, an InstructPix2Pix and a CLIP as diffusers and transformers save them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flame.flame_files import write_flame
from tests.tiny_capture import write_tiny_capture
from tests.tiny_clip import save_tiny_clip
from tests.tiny_editor import save_tiny_editor

SCRIPT = Path(__file__).parents[3] / "tools" / "measure" / "results_nersemble.sh"
EDITS = """# a comment
older\tMake HIM look older\ta photo of a PERSON\ta photo of an old PERSON
red\tTurn HIM red\ta photo of a PERSON\ta photo of a red PERSON
"""

pytestmark = pytest.mark.slow


def test_from_the_capture_to_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flame = write_flame(tmp_path / "flame", 2023)
    monkeypatch.setenv("FLAME_MODEL_PATH", str(flame))
    capture = write_tiny_capture(tmp_path / "capture", size=32, cameras=3, timesteps=2, samples=1)
    editor, clip = save_tiny_editor(tmp_path / "editor"), save_tiny_clip(tmp_path / "clip")
    (tmp_path / "edits.tsv").write_text(EDITS)
    out = tmp_path / "out"
    command = [
        "bash", SCRIPT, "--data", capture.union, "--motion", capture.root / "EMO-1", "--person", "woman", "--out", out,
        "--edits", tmp_path / "edits.tsv", "--method", "rigged-splatfacto-fast", "--steps", 4, "--editor", editor,
        "--clip", clip, "--evaluate", "--expression-frames 0 --identity none", "--",
        "--pipeline.rounds", 1, "--pipeline.edit-every", 2, "--pipeline.final-steps", 1, "--pipeline.views-per-edit", 2,
        "--pipeline.editor.steps", 2,
    ]  # fmt: skip
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "FLAME_MODEL_PATH": str(flame)}

    done = subprocess.run(
        [str(word) for word in command], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((out / "evaluation" / "report.json").read_text())
    assert [run["prompt"] for run in report["runs"]] == ["Make her look older", "Turn her red"]
    assert report["runs"][1]["target_caption"] == "a photo of a red woman"
    for edited in report["runs"]:
        assert set(edited["settings"]) == {"novel_view", "self_reenactment", "cross_reenactment"}
        for setting in edited["settings"].values():
            assert all(math.isfinite(setting["figures"][name]["value"]) for name in ("clip_s", "clip_c"))
        assert edited["base_quality"]["novel_view"]["psnr"] > 0
    text = (out / "evaluation" / "report.md").read_text()
    assert "Edit3DGS, Table 1" in text and "(true edit" not in text
