"""`ns-train` with a stopwatch: how soon the first step is done, how much memory a training takes, how fast it is.

Run by `streaming.py` in a process of its own for each figure; prints one line of JSON at the end. `memory` trains, and then
lets the training images of many more steps be decoded, so that the cache is full. `speed` alternates, on the same model, between
windows of steps as they are and windows of the same number of steps whose images were all decoded before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

METHOD = "rigged-splatfacto-fast"
MARK = "STREAMING "
"""The line of the result begins with it."""
WARM_UP = 20
"""Steps before the first window: kernels are compiled or loaded, memory is touched for the first time."""


class Stopwatch:
    """Wraps the trainer's step."""

    def __init__(self, started: float, window: int):
        self.started, self.window = started, window
        self.first_step: float | None = None
        self.wall: dict[str, list[float]] = {"streamed": [], "cached": []}
        self.cpu: dict[str, list[float]] = {"streamed": [], "cached": []}
        """Seconds of each window's average step, on the clock and on all cores together."""
        self._began = (0.0, 0.0)
        self._streamed: Any = None

    def attach(self, alternate: bool) -> None:
        """Replace `Trainer.train_iteration` for this process."""
        from nerfstudio.engine.trainer import Trainer

        original = Trainer.train_iteration

        def train_iteration(trainer: Any, step: int) -> Any:
            if alternate:
                self._switch(trainer.pipeline.datamanager, step)
            result = original(trainer, step)
            if self.first_step is None:
                self.first_step = time.time() - self.started
            self.trainer = trainer
            return result

        Trainer.train_iteration = train_iteration  # type: ignore[method-assign]

    def _switch(self, data: Any, step: int) -> None:
        """At the end of a window: note its time, and prepare the next one."""
        number, position = divmod(step - WARM_UP, self.window)
        if number < 0 or position:
            return
        wall, cpu = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        if number > 0:
            kind = "cached" if number % 2 == 0 else "streamed"
            self.wall[kind].append(wall / self.window)
            self.cpu[kind].append(cpu / self.window)
        if self._streamed is None:
            self._streamed = data._train_images
        data._train_images = self._streamed
        if number % 2:
            self._streamed.prefetch([])  # nothing is left to do for the workers
            data._train_images = data.make_stream(cache_gb=1e3, workers=0)
            for ahead in range(self.window):
                for index in data.batch_indices(step + ahead):
                    data.train_image(index)
        self._began = (time.perf_counter(), time.process_time())


def main() -> None:
    """Train, and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("memory", "speed"))
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--window", type=int, default=40)
    parser.add_argument("--started", type=float, default=time.time())
    options = parser.parse_args()
    watch = Stopwatch(options.started, options.window)
    watch.attach(alternate=options.mode == "speed")
    _train(options.data, options.out, options.steps)
    data = watch.trainer.pipeline.datamanager
    result = {"seconds_to_first_step": watch.first_step, "images_kept": len(data._train_images)}
    if options.mode == "memory":
        result["training_peak_gb"] = peak_gb()
        for step in range(options.steps, options.steps + 800):
            data.next_train(step)
        result |= {"peak_gb": peak_gb(), "images_kept": len(data._train_images)}
    else:
        result |= {f"{name}_step_s": statistics.median(times) for name, times in watch.wall.items()}
        result |= {f"{name}_cpu_s": statistics.median(times) for name, times in watch.cpu.items()}
        result["windows"] = watch.wall
    print(MARK + json.dumps(result), flush=True)


def _train(data: Path, out: Path, steps: int) -> None:
    """What `ns-train` does, with its own command line."""
    from nerfstudio.scripts.train import entrypoint

    sys.argv = ["ns-train", METHOD, "--output-dir", str(out), "--max-num-iterations", str(steps)]
    sys.argv += ["--steps-per-eval-image", "1000000", "--steps-per-save", "1000000"]
    sys.argv += ["nersemble-data", "--data", str(data)]
    entrypoint()


def peak_gb() -> float:
    """The most memory that this process has held at once, GB."""
    # Not getrusage: its figure starts with that of the parent process.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError(
        "/proc/self/status has no VmHWM: the peak memory of a process is measured on Linux only"
    )


if __name__ == "__main__":
    main()
