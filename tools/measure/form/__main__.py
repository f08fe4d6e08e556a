"""Edits of form against their truth: `python -m tools.measure.form`; writes outputs/form.json and a sheet for each edit.

The editor returns the true edited images, so that what is measured is what the avatar makes of them, not a neural network.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edit3dgs_ns.files import write_durably
from edit3dgs_ns.synthetic.true_edits import TRUE_EDITS
from tools.measure.ablation.training import train
from tools.measure.form.true_editor import VARIABLE

EDITS = ("full_beard", "knitted_hat", "glasses", "bald")
COLORS = "older"
"""The edit of colours whose time is compared with."""


def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="combined data set of a synthetic capture")
    parser.add_argument("--avatar", type=Path, required=True, help="run of its avatar")
    parser.add_argument("--out", type=Path, default=Path("outputs/form.json"))
    parser.add_argument("--folder", type=Path, default=Path("outputs/form"), help="gets runs and sheets")
    parser.add_argument("--edits", nargs="*", default=list(EDITS), help="keys of TRUE_EDITS")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--edit-every", type=int, default=50)
    parser.add_argument("--views-per-edit", type=int, default=4)
    parser.add_argument("--final-steps", type=int, default=200)
    parser.add_argument("--views", type=int, default=8, help="held-out views that are compared")
    args = parser.parse_args(argv)
    colors = _fitting_seconds(args, COLORS)
    rows: list[dict[str, Any]] = []
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for edit in args.edits:
        rows.append(_row(args, edit, colors))
        write_durably(args.out, (json.dumps({"form": rows}, indent=1) + "\n").encode())


def _row(args: argparse.Namespace, edit: str, colors: float) -> dict[str, Any]:
    from edit3dgs_ns.runs.trained_run import TrainedRun
    from tools.measure.form.figures import figures_of, sheet_of, stray_gaussians, views_of

    seconds = _fitting_seconds(args, edit)
    edited = TrainedRun(_run(args, edit) / "config.yml")
    base = TrainedRun(args.avatar / "config.yml")
    views = views_of(edited, base, edit, args.views)
    sheet = (sheet_of(views) * 255).round().astype(np.uint8)
    Image.fromarray(sheet).save(args.folder / f"{edit}.png")
    row = {
        "prompt": TRUE_EDITS[edit].instructions[0],
        **figures_of(views),
        "stray_gaussians": stray_gaussians(edited, edit),
        "stray_gaussians_unedited": stray_gaussians(base, edit),
        "gaussians": edited.pipeline.model.num_points,
        "gaussians_unedited": base.pipeline.model.num_points,
        "time_ratio": round(seconds / colors, 2),
    }
    print(json.dumps(row), flush=True)
    return row


def _run(args: argparse.Namespace, edit: str) -> Path:
    return Path(args.folder / edit / "edit3dgs" / "run")


def _fitting_seconds(args: argparse.Namespace, edit: str) -> float:
    """Edits the avatar unless that is done; seconds of the run without those of the editor."""
    clock = args.folder / edit / "seconds.json"
    if not clock.is_file():
        data = args.data.resolve()
        os.environ[VARIABLE] = f"{edit}@{data}"
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[3])
        flags = [
            "--prompt", TRUE_EDITS[edit].instructions[0], "--pipeline.avatar", str(args.avatar),
            "--pipeline.editor.model", "python:tools.measure.form.true_editor:make",
            "--pipeline.editor.correspondence", "none", "--pipeline.editor.keep", "none",
            "--pipeline.rounds", str(args.rounds), "--pipeline.edit-every", str(args.edit_every),
            "--pipeline.views-per-edit", str(args.views_per_edit), "--pipeline.final-steps", str(args.final_steps),
        ]  # fmt: skip
        started = time.perf_counter()
        steps = args.rounds * args.edit_every + args.final_steps
        run = train(args.folder / edit, data, flags, steps)
        history = json.loads((run / "edit_history.json").read_text(encoding="utf-8"))
        taken = time.perf_counter() - started - history["seconds"]
        clock.write_text(json.dumps(taken), encoding="utf-8")
    return float(json.loads(clock.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
