"""Spoils a small capture in every way that the doctor knows, has it mended, and trains on what comes of it.

    python -m tools.measure.captures [--steps 600] [--size 96]     # the key "capture" of outputs/trust.json

Every mended capture and the unbroken one are trained on alike, and their avatars are compared on the held-out camera of the capture
that they were trained on. Resumes where it was stopped; outputs/captures holds what it has done (delete it to begin anew).
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from edit3dgs_ns.files import write_durably
from tools.measure.checkout import make_tests_importable
from tools.measure.trust_file import OUTPUT, merge

_SOUND = "unbroken"


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints a line for each fault, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--size", type=int, default=96, help="side of the images, pixels")
    parser.add_argument("--only", default="", help="part of a fault's name; then nothing is written")
    parser.add_argument("--folder", type=Path, default=OUTPUT.parent / "captures")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    options = parser.parse_args(arguments)
    make_tests_importable()
    from tests.corrupted_captures import MENDED, NAMED
    from tests.tiny_capture import UNION, write_tiny_capture

    folder = options.folder.resolve() / f"{options.steps}_steps_{options.size}_px"
    sound = folder / "sound"
    if not (sound / "done").is_file():
        shutil.rmtree(sound, ignore_errors=True)
        write_tiny_capture(sound, size=options.size, cameras=4, timesteps=3, samples=2)
        (sound / "done").touch()
    best = _result(folder, _SOUND, lambda: {"psnr": _trained(sound / UNION, folder / "run", options.steps)})[
        "psnr"
    ]
    print(f"{_SOUND:24} {best:.2f} dB", flush=True)
    rows = []
    for name, (kind, corrupt) in {**MENDED, **NAMED}.items():
        if options.only not in name:
            continue

        def measure(name: str = name, corrupt: Any = corrupt) -> dict[str, Any]:
            broken, out = folder / "broken", folder / "mended"
            for place in (broken, out):
                shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(sound, broken)
            corrupt(broken / UNION)
            row = _mended(broken / UNION, out)
            if row["is_mended"]:
                row["psnr"] = _trained(out, folder / "run", options.steps)
            return row

        row = {"name": name, "kind": kind, **_result(folder, name, measure)}
        rows.append(row)
        loss = f"{row['psnr']:.2f} dB, {best - row['psnr']:+.2f} lost" if "psnr" in row else "not mended"
        print(f"{name:24} found: {', '.join(row['found']):22} {loss}", flush=True)
    found = figures(rows, best)
    print(found)
    if not options.only:
        merge("capture", found, options.out.resolve())
    return 0


def figures(rows: list[dict[str, Any]], best: float) -> dict[str, Any]:
    """For outputs/trust.json: kinds of faults, those of which every example was found under its own name, those of which every
    example was mended, and the most that a mended capture's avatar has lost against `best`, in dB."""
    kinds = {row["kind"] for row in rows}
    mixed_up = {row["kind"] for row in rows if row["found"] != [row["kind"]]}
    unmended = {row["kind"] for row in rows if "psnr" not in row}
    losses = {row["name"]: best - row["psnr"] for row in rows if "psnr" in row}
    worst = max(losses, key=lambda name: losses[name], default="")
    return {
        "kinds": len(kinds),
        "told_apart": len(kinds - mixed_up),
        "mended": len(kinds - unmended),
        "worst_psnr_loss_db": round(losses[worst], 3) if losses else None,
        "worst": worst,
        "unbroken_psnr_db": round(best, 3),
    }


def _mended(capture: Path, out: Path) -> dict[str, Any]:
    """What the doctor finds, and whether it finds nothing any more in what `--repair` has written."""
    from edit3dgs_ns.capture.diagnosis import diagnose
    from edit3dgs_ns.capture.transforms import readable_frames
    from edit3dgs_ns.commands import main as cli
    from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
    from edit3dgs_ns.flame.loading import load_assets

    head = load_assets(OPEN_HEAD_PATH)
    found = [fault.kind for fault in diagnose(readable_frames(capture), head).faults]
    cli.run(["doctor", "--data", str(capture), "--repair", str(out)])
    is_mended = out.is_dir() and not diagnose(readable_frames(out), head).faults
    return {"found": found, "is_mended": is_mended}


def _trained(capture: Path, output: Path, steps: int) -> float:
    """PSNR in dB on the held-out camera of an avatar that was trained for some steps."""
    from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast
    from tests.edit_runs import train

    shutil.rmtree(output, ignore_errors=True)
    config = copy.deepcopy(rigged_splatfacto_fast.config)
    config.output_dir, config.timestamp, config.max_num_iterations = output, "run", steps
    config.machine.device_type, config.steps_per_eval_image = "cpu", 0
    config.pipeline.datamanager.dataparser.data = capture
    pipeline = train(config).pipeline
    pipeline.eval()
    return float(pipeline.get_average_eval_image_metrics()["psnr"])


def _result(folder: Path, name: str, measure: Any) -> dict[str, Any]:
    path = folder / "results" / f"{name.replace(' ', '_')}.json"
    if not path.is_file():
        write_durably(path, json.dumps(measure()).encode())
    return dict(json.loads(path.read_text()))


if __name__ == "__main__":
    sys.exit(main())
