"""`nersemble-data` under a method that is not ours: nerfacto trains on one chosen timestep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_capture import TinyCapture


@pytest.mark.slow
def test_nerfacto_trains_on_one_timestep(tiny_capture: TinyCapture, torch_home: Path, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("ns-train")), "nerfacto", "--machine.device-type", "cpu", "--vis", "tensorboard",
        "--max-num-iterations", "3", "--pipeline.model.implementation", "torch",
        "--pipeline.datamanager.train-num-rays-per-batch", "64", "--pipeline.datamanager.eval-num-rays-per-batch", "64",
        "--pipeline.model.num-levels", "4", "--output-dir", str(tmp_path),
        "nersemble-data", "--data", str(tiny_capture.union), "--timestep", "1",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "TORCH_HOME": str(torch_home),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    assert len(list(tmp_path.rglob("step-000000002.ckpt"))) == 1
