"""A small, fixed part of the campaign of kills: a real process, really killed, in its training, its edits and its video."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_a_killed_edit_ends_like_one_that_was_not(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.measure.kills", "--kills", "3"]
    places = ["--folder", str(tmp_path / "kills"), "--out", str(tmp_path / "trust.json")]
    (tmp_path / "trust.json").write_text(json.dumps({"files": {"readers": 25}}))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *places], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "trust.json").read_text())
    assert found["files"] == {"readers": 25}
    kills = found["kills"]
    assert kills["count"] == kills["identical"] == 3 and kills["edits_lost"] == 0


def test_what_differs_is_found(tmp_path: Path) -> None:
    """The comparison can fail: torn files and other checkpoints are told."""
    import torch

    from tests.edit_runs import differing_leaves
    from tools.measure.kills.compare import torn

    torch.save({"a": torch.zeros(3)}, tmp_path / "step-000000001.ckpt")
    (tmp_path / "x.json").write_text("{}")
    assert torn(tmp_path) == []
    data = (tmp_path / "step-000000001.ckpt").read_bytes()
    (tmp_path / "step-000000001.ckpt").write_bytes(data[: len(data) // 2])
    (tmp_path / "x.json").write_text("{")
    (tmp_path / ".y.json.1.part").write_text("{")
    assert torn(tmp_path) == ["step-000000001.ckpt", "x.json"]
    one = {"a": [torch.zeros(3), 1], "b": {"c": 2}}
    assert differing_leaves(one, {"a": [torch.zeros(3), 1], "b": {"c": 2}}) == []
    assert differing_leaves(one, {"a": [torch.tensor([0, 0, 1e-9]), 1], "b": {}}) == ["/a/0", "/b/c"]
