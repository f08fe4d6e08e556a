"""How good the avatar is, and what each part of its training gives: one row per variant.

    python -m tools.measure.avatar_experiments                # the demo's capture at 512 x 512, all variants: hours
    python -m tools.measure.avatar_experiments --only default no_densify no_tuning
    python -m tools.measure.avatar_experiments --capture outputs/demo/capture --out outputs/avatar_256 --steps 1500

Writes OUT.json (OUT is --out) after every row and prints the table of the README. Every variant is a call of `ns-train
rigged-splatfacto-fast` with a few flags; it can be stopped and goes on where it was when the same command is given again, and a
row that is there is kept. The last two variants train with perturbed parameters, as from a bad tracker.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from tools.measure.avatar_experiments.measure import measure, recovered_share, table
from tools.measure.avatar_experiments.noise import write_noisy_capture
from tools.measure.avatar_experiments.variants import VARIANTS, Variant

ROOT = Path(__file__).resolve().parents[3]
METHOD = "rigged-splatfacto-fast"
SEED = 12
"""The person of `edit3dgs demo`."""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "avatar_experiments", help="the runs")
    parser.add_argument("--capture", type=Path, help="a capture; default: one is made in OUT/capture")
    parser.add_argument("--resolution", type=int, default=512, help="of the capture that is made")
    parser.add_argument("--frames", type=int, default=24, help="timesteps of each of its sequences")
    parser.add_argument("--steps", type=int, help="of each training; default: the method's")
    parser.add_argument("--images", type=int, default=32, help="measured per figure, spread evenly")
    parser.add_argument("--only", nargs="+", choices=[v.name for v in VARIANTS], help="these variants")
    options = parser.parse_args(arguments)
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps {options.steps}: expected at least 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Train and measure what is missing."""
    options = parse(arguments)
    capture = find_capture(options)
    result = options.out.with_name(options.out.name + ".json")
    rows = read_rows(result)
    for variant in VARIANTS:
        if options.only is not None and variant.name not in options.only:
            continue
        settings = {
            "flags": list(variant.flags),
            "steps": options.steps,
            "capture": str(capture),
            "method": method_digest(),
        }
        if rows.get(variant.name, {}).get("settings") != settings:
            rows[variant.name] = {
                "what": variant.what,
                "settings": settings,
                **trained(variant, capture, options),
            }
            write_rows(result, rows)
        print(table(in_order(rows)), flush=True)
    share = recovered_share(rows)
    if share is not None:
        print(f"Of the PSNR that the perturbation costs, fine-tuning brings back {100 * share:.0f} %.")
    return 0


def trained(variant: Variant, capture: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train a variant, or go on with it, and measure it."""
    from edit3dgs_ns.demo.job import newest_step, run_ns_train
    from edit3dgs_ns.demo.settings import CHECKPOINTS, RUN, run_dir

    folder = options.out / variant.name
    run = run_dir(folder, METHOD)
    data = write_noisy_capture(capture, options.out / "noisy_capture") if variant.noisy else capture
    steps, done = options.steps or default_steps(), newest_step(run / CHECKPOINTS)
    start = time.monotonic()
    if done is None or done + 1 < steps:
        left = steps if done is None else steps - (done + 1)
        resume = [] if done is None else ["--load-dir", str(run / CHECKPOINTS)]
        length = schedule_flags(options.steps) if options.steps else []
        code = run_ns_train([
            METHOD, "--output-dir", str(options.out), "--experiment-name", variant.name, "--timestamp", RUN,
            "--vis", "tensorboard", "--steps-per-eval-image", "0", *resume, *length,
            "--max-num-iterations", str(left), *variant.flags, "nersemble-data", "--data", str(data),
        ])  # fmt: skip
        if code != 0:
            raise SystemExit(f"{variant.name}: ns-train ended with code {code}")
    seconds = time.monotonic() - start
    return {"train_seconds": round(seconds, 1), **measure(run / "config.yml", options.images)}


def default_steps() -> int:
    """Length of the method's own training."""
    from edit3dgs_ns.method_configs.rigged_splatfacto_fast import STEPS

    return STEPS


def method_digest() -> str:
    """Changes with every default of the method that a training depends on: rows of other defaults are made anew."""
    from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast

    config = rigged_splatfacto_fast.config
    defaults = repr((config.pipeline.model, sorted(config.optimizers.items())))
    return hashlib.sha256(defaults.encode()).hexdigest()[:12]


def schedule_flags(steps: int) -> list[str]:
    """Decays and densification that end with a training of another length."""
    from edit3dgs_ns.training.optimizers import avatar_optimizers

    flags = ["--pipeline.model.stop-split-at", str(steps)]
    for name, group in avatar_optimizers(steps).items():
        if group["scheduler"] is not None:
            flags += [f"--optimizers.{name.replace('_', '-')}.scheduler.max-steps", str(steps)]
    return flags


def find_capture(options: argparse.Namespace) -> Path:
    """The combined set of the capture, which is made if none is given."""
    if options.capture is None:
        from edit3dgs_ns.synthetic.writer import write_capture

        size = options.resolution
        return write_capture(
            options.out / "capture", seed=SEED, width=size, height=size, frames=options.frames
        )
    if (options.capture / "transforms_train.json").is_file():
        return options.capture.resolve()
    unions = sorted(options.capture.glob("UNION*/transforms_train.json"))
    if len(unions) != 1:
        raise SystemExit(
            f"--capture {options.capture}: expected a folder with transforms_train.json, or with one UNION* folder; "
            f"found {len(unions)} of these."
        )
    return unions[0].parent.resolve()


def read_rows(path: Path) -> dict[str, Any]:
    """The rows measured before."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else {}


def in_order(rows: dict[str, Any]) -> dict[str, Any]:
    """Rows in the order of VARIANTS."""
    return {v.name: rows[v.name] for v in VARIANTS if v.name in rows}


def write_rows(path: Path, rows: dict[str, Any]) -> None:
    """All rows, and the share that fine-tuning recovers."""
    from edit3dgs_ns.files import write_durably

    ordered = in_order(rows)
    content = {"rows": ordered, "recovered_share_of_psnr": recovered_share(ordered)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, (json.dumps(content, indent=2) + "\n").encode())


if __name__ == "__main__":
    raise SystemExit(main())
