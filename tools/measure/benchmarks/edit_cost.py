"""What it costs to make the views of a batch agree: key views and injection against each view alone.

    python -m tools.measure.benchmarks.edit_cost                     16 views with the demo editor, all its steps

Prints a line of JSON for each correspondence: UNet evaluations, seconds, seconds of processor time, and the ratios to `none`.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from edit3dgs_ns.editing.agreement.sharing import SharingOptions
from edit3dgs_ns.editing.diffusion.loading import load_editor
from tools.measure.benchmarks.ball import ball_request

KINDS = ("none", "rig", "epipolar")


def measure(kind: str, options: argparse.Namespace) -> dict[str, float]:
    """Edit the batch `options.repeats` times after a warm-up; the fastest counts."""
    sharing = SharingOptions(kind, views_per_key=options.views_per_key)
    editor = load_editor(
        options.model, sharing=sharing, device=options.device, views_per_forward=options.views_per_forward
    )
    scales = {"guidance_scale": options.guidance_scale, "image_guidance_scale": options.image_guidance_scale}
    editor.edit(ball_request(options.views, options.pixels, steps=1, **scales))
    asked = ball_request(options.views, options.pixels, steps=options.steps, **scales)
    times = []
    for _ in range(options.repeats):
        cpu = time.process_time()
        result = editor.edit(asked)
        times.append((result.seconds, time.process_time() - cpu))
    seconds, processor = min(times)
    return {
        "correspondence": kind,
        "unet_evaluations": result.unet_evaluations,
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor, 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, default in (
        ("views", 16), ("views-per-key", 5), ("views-per-forward", 4), ("pixels", 256), ("repeats", 2), ("steps", None),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("guidance-scale", "image-guidance-scale"):
        parser.add_argument(f"--{name}", type=float, default=None)
    given = parser.parse_args()
    base = None
    for kind in KINDS:
        row = measure(kind, given)
        base = base or row
        ratios = {f"{name}_ratio": round(row[name] / base[name], 3) for name in list(row)[1:]}
        print(json.dumps(row | ratios), flush=True)
