"""`python -m tools.measure.tracking`: errors of tracking on synthetic people, and what they cost the avatar.

Four people who took no part in making the landmark table are filmed by one camera, tracked, and trained on twice: with the tracked
parameters and with the true ones. Everything that is done is kept, and done again only where the code it depends on has changed.
The result is `outputs/tracking.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from edit3dgs_ns.demo.settings import run_dir
from edit3dgs_ns.files import write_durably
from tools.measure.tracking.avatars import METHOD, held_out_quality, train_avatar
from tools.measure.tracking.captures import tracked_capture, true_capture
from tools.measure.tracking.code_digest import tracking_digest, training_digest
from tools.measure.tracking.errors import tracking_errors
from tools.measure.tracking.people import SEEDS, Person, Truth, truth_of, write_video
from tools.measure.tracking.picture import draw_tracking_picture
from tools.measure.tracking.table import table

ROOT = Path(__file__).resolve().parents[3]
SIZES = (256, 512)
TRAINED_SIZES = (256,)
"""An avatar is trained in these."""
STEPS = 1500
SHOWN = 5
"""The person in the picture of the documentation."""
FIGURES = (
    "rotation_deg", "vertices_mm", "jaw_deg", "gaze_deg", "lids_mm", "focal_percent", "psnr_loss_db", "frames_per_second",
)  # fmt: skip
Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measures what is missing."""
    options = _parse(arguments)
    rows = _read_rows(options.out)
    for size in options.sizes:
        for seed in options.seeds:
            person = Person(seed, size)
            row = rows.setdefault(person.name, {})
            measure(person, row, options)
            _write(options, rows)
    shown = Person(SHOWN, TRAINED_SIZES[0]).name
    if "training_code" in rows.get(shown, {}):
        folder = options.out / shown
        avatar = run_dir(folder / "avatars" / "tracked", METHOD) / "config.yml"
        draw_tracking_picture(folder / "tracked" / "tracking.mp4", avatar, options.out / "tracked.png")
    print(table("", rows, FIGURES, 2))
    return 0


def measure(person: Person, row: Row, options: argparse.Namespace) -> None:
    """Fills in what a person's row lacks."""
    folder = options.out / person.name
    folder.mkdir(parents=True, exist_ok=True)
    video = folder / "video.mp4"
    if not video.is_file():
        write_video(person, video)
    if row.get("tracking_code") != tracking_digest():
        row.clear()
        row.update(_tracked(person, folder, truth_of(person)), tracking_code=tracking_digest())
    steps = options.steps
    if person.size in TRAINED_SIZES and steps and row.get("training_code") != training_digest(steps):
        row["psnr"], row["ssim"] = {}, {}
        for name in ("tracked", "true"):
            row["psnr"][name], row["ssim"][name] = _trained(folder, name, steps)
        row["psnr_loss_db"] = row["psnr"]["true"] - row["psnr"]["tracked"]
        row["training_code"] = training_digest(steps)


def _tracked(person: Person, folder: Path, truth: Truth) -> Row:
    """Tracks anew; the trainings on an older tracking go."""
    for name in ("tracked", "true", "avatars"):
        shutil.rmtree(folder / name, ignore_errors=True)
    result, seconds = tracked_capture(folder / "video.mp4", folder / "tracked", truth.head, person.size)
    true_capture(folder / "tracked", result, truth, folder / "true")
    errors = tracking_errors(
        truth.head,
        result.motion,
        truth.motion.with_pose(truth.motion.pose(list(result.frames))),
        result.report["focal_length_pixels"],
        float(truth.camera.K[0, 0]),
    )
    return {
        **asdict(errors),
        "frames": len(result.frames),
        "frames_per_second": len(result.frames) / seconds,
        "reprojection_percent": result.report["reprojection_percent"],
    }


def _trained(folder: Path, name: str, steps: int) -> tuple[float, float]:
    from edit3dgs_ns.runs.trained_run import TrainedRun

    config = train_avatar(folder / name, folder / "avatars" / name, steps)
    quality = held_out_quality(TrainedRun(config))
    return quality.psnr, quality.ssim


def summary(rows: dict[str, Row]) -> dict[str, Any]:
    """What `tracking.json` holds: means over the people at 256 as `synthetic`, at 512 beside them, and everyone."""
    content: dict[str, Any] = {}
    for key, size in (("synthetic", 256), ("synthetic_512", 512)):
        chosen = [row for name, row in rows.items() if name.endswith(f"_{size}") and row]
        if chosen:
            content[key] = means(chosen)
    return content | {"people": rows}


def means(rows: Sequence[Row]) -> dict[str, float]:
    """Of every figure that all rows have."""
    return {name: mean(row[name] for row in rows) for name in FIGURES if all(name in row for row in rows)}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "outputs" / "tracking", help="where everything lands"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="which people")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, choices=SIZES, help="pixels of a side")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training; 0 trains none")
    return parser.parse_args(arguments)


def _read_rows(out: Path) -> dict[str, Row]:
    path = _result(out)
    return json.loads(path.read_text(encoding="utf-8"))["people"] if path.is_file() else {}


def _write(options: argparse.Namespace, rows: dict[str, Row]) -> None:
    ordered = dict(sorted(rows.items(), key=lambda item: (item[0].rsplit("_")[-1], item[0])))
    write_durably(_result(options.out), (json.dumps(summary(ordered), indent=2) + "\n").encode())


def _result(out: Path) -> Path:
    """tracking.json beside the folder."""
    return out.with_name(f"{out.name}.json")


if __name__ == "__main__":
    raise SystemExit(main())
