"""Whether the memory of a long training stays flat: python -m tools.measure.memory [--steps 10000]

Trains a tiny avatar and looks at the resident memory on the way; the key "memory" of outputs/trust.json.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.measure.checkout import make_tests_importable
from tools.measure.trust_file import OUTPUT, merge

SAMPLES = 40


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    options = parser.parse_args(arguments)
    samples = train_and_look(options.steps)
    found = figures(samples)
    print(found)
    merge("memory", found, options.out.resolve())
    return 0


def train_and_look(steps: int) -> list[tuple[int, float]]:
    """Steps done, and the resident memory then, in MiB. It saves on the way, and densifies in the first tenth."""
    make_tests_importable()
    from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast
    from edit3dgs_ns.training.trainer import ResumableTrainer
    from tests.edit_runs import train
    from tests.tiny_capture import write_tiny_capture

    samples: list[tuple[int, float]] = []
    iteration = ResumableTrainer.train_iteration

    def looking(self: Any, step: int) -> Any:
        if step % max(steps // SAMPLES, 1) == 0:
            samples.append((step, resident_mib()))
            print(f"step {step:6}: {samples[-1][1]:.1f} MiB", flush=True)
        return iteration(self, step)

    ResumableTrainer.train_iteration = looking  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            config = copy.deepcopy(rigged_splatfacto_fast.config)
            config.output_dir, config.timestamp, config.max_num_iterations = (
                Path(folder) / "run",
                "run",
                steps,
            )
            config.machine.device_type, config.steps_per_eval_image = "cpu", 500
            config.steps_per_save = max(steps // 10, 1)
            config.pipeline.datamanager.dataparser.data = write_tiny_capture(
                Path(folder) / "capture", size=24, cameras=4, timesteps=2, samples=1
            ).union
            config.pipeline.datamanager.cameras_per_step = 1
            config.pipeline.model.stop_split_at = steps // 10
            train(config)
            samples.append((steps, resident_mib()))
    finally:
        ResumableTrainer.train_iteration = iteration  # type: ignore[method-assign]
    return samples


def figures(samples: list[tuple[int, float]]) -> dict[str, Any]:
    """What the memory did after the first fifth: caches have filled by then, and compiled code is loaded."""
    steps = samples[-1][0]
    settled = [mib for step, mib in samples if step >= steps / 5]
    return {
        "steps": steps,
        "mib_after_a_fifth": round(settled[0], 1),
        "mib_at_the_end": round(settled[-1], 1),
        "growth_mib_per_1000_steps": round((settled[-1] - settled[0]) / (0.8 * steps) * 1000, 2),
    }


def resident_mib() -> float:
    """Of this process; on Linux."""
    status = Path("/proc/self/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
