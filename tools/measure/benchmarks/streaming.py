"""Training on a capture far larger than memory: how soon it starts, what memory it takes, what the streaming costs.

    python -m tools.measure.benchmarks.streaming              # about ten minutes, most of them training

Makes a capture of 20,000 images and one of 100 (`large_capture.py`) and runs `ns-train` on them, each figure in a
process of its own (`streaming_run.py`):

    extra_peak_gb            peak memory with 20,000 images, less that with 100 images
    steps_per_second_ratio   of steps whose images are streamed, against steps whose images were all decoded before;
                             windows of both alternate in one training, so that other load on the machine hits both
    seconds_to_first_step    from starting the command to the end of the first step, with 20,000 images
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from tools.measure.benchmarks.large_capture import make_pictures, write_large_capture
from tools.measure.benchmarks.streaming_run import MARK, WARM_UP

IMAGES, FEW = 20_000, 100
MEMORY_STEPS = 60
WINDOW, WINDOWS = 40, 12
ROOT = Path(__file__).resolve().parents[3]


def measure(console: Console) -> dict[str, Any]:
    """The section `streaming` of bench.json.

    Raises:
        RuntimeError: a training failed; the message ends with what it printed last.
    """
    with tempfile.TemporaryDirectory(prefix="edit3dgs-streaming-") as folder:
        root = Path(folder)
        console.log(f"Streaming: making a capture of {IMAGES:,} images in {root}")
        pictures = make_pictures(root)
        few = write_large_capture(root, "few", pictures, FEW)
        many = write_large_capture(root, "many", pictures, IMAGES)
        console.log(f"Streaming: memory of a training with {FEW} images and with {IMAGES:,}")
        small = _run("memory", few, root, MEMORY_STEPS)
        large = _run("memory", many, root, MEMORY_STEPS)
        console.log(
            f"Streaming: {WINDOWS} windows of {WINDOW} steps, half of them with all images decoded before"
        )
        speed = _run("speed", many, root, WARM_UP + WINDOW * WINDOWS + 1)
    return {
        "extra_peak_gb": round(large["peak_gb"] - small["peak_gb"], 3),
        "steps_per_second_ratio": round(speed["cached_step_s"] / speed["streamed_step_s"], 3),
        "seconds_to_first_step": round(large["seconds_to_first_step"], 1),
        "images": IMAGES,
        "peak_gb": round(large["peak_gb"], 3),
        "peak_gb_100_images": round(small["peak_gb"], 3),
        "streamed_steps_per_second": round(1 / speed["streamed_step_s"], 2),
        "cached_steps_per_second": round(1 / speed["cached_step_s"], 2),
    }


def _run(mode: str, data: Path, root: Path, steps: int) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "tools.measure.benchmarks.streaming_run",
        mode,
        str(data),
        str(root / "runs"),
    ]
    command += ["--steps", str(steps), "--window", str(WINDOW), "--started", repr(time.time())]
    # As the Makefile sets it for everything.
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines = done.stdout.splitlines()
    results = [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]
    if done.returncode != 0 or not results:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n" + "\n".join(lines[-30:]))
    return json.loads(results[-1])


if __name__ == "__main__":
    print(json.dumps(measure(Console()), indent=2))
