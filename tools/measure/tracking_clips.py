"""`python -m tools.measure.tracking_clips FOLDER`: tracking, avatar and driving, measured on real clips.

For every video in the folder: how well the head fits, how good the avatar is on the clip's last fifth (which it has not seen),
whether it opens mouth and lids when the person does, and whether another avatar does that is driven by the clip. The clips have no
truth: a landmark detector compares renders with frames. The result is `outputs/tracking_clips.json`; parts that are done are kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edit3dgs_ns.evaluation.image_layout import to_uint8
from edit3dgs_ns.files import write_durably
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.tracking.driving import is_video
from edit3dgs_ns.tracking.video import describe_video, read_frames
from tools.measure.tracking.avatars import held_out_quality, train_avatar
from tools.measure.tracking.captures import tracked_capture
from tools.measure.tracking.code_digest import driving_digest, tracking_digest, training_digest
from tools.measure.tracking.landmark_series import FaceSeries, correlation
from tools.measure.tracking.table import table

ROOT = Path(__file__).resolve().parents[2]
SIZE, STEPS = 256, 3000
FIGURES = (
    "reprojection_percent", "worst_percent", "psnr", "ssim", "mouth_correlation", "lid_correlation",
    "driven_mouth_correlation", "driven_lid_correlation", "frames_per_second",
)  # fmt: skip
LEAST_RANGE = 3.0
"""Percent of the distance between the eyes that mouth or lids have to move before their correlation is looked at: about 3 mm."""
Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measures what is missing."""
    options = _parse(arguments)
    clips = sorted(path for path in options.folder.iterdir() if is_video(path))
    if not clips:
        raise SystemExit(f"{options.folder}: no videos in it.")
    result = options.out.with_name(f"{options.out.name}.json")
    rows: dict[str, Row] = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
    for clip in clips:
        if options.only is None or clip.stem in options.only:
            row = rows.setdefault(clip.stem, {})
            for part in (_track, _train, _drive):
                part(clip, row, options)
                write_durably(result, (json.dumps(rows, indent=2) + "\n").encode())
    print(table("clip", rows, FIGURES, 3))
    return 0


def _track(clip: Path, row: Row, options: argparse.Namespace) -> None:
    folder = options.out / clip.stem
    if row.get("tracking_code") == tracking_digest() and (folder / "capture").is_dir():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    result, seconds = tracked_capture(clip, folder / "capture", load_assets(), SIZE)
    row.clear()
    row["frames"] = len(result.frames)
    row["frames_per_second"] = len(result.frames) / seconds
    row |= {name: result.report[name] for name in ("reprojection_percent", "worst_percent")}
    row["tracking_code"] = tracking_digest()


def _train(clip: Path, row: Row, options: argparse.Namespace) -> None:
    """The avatar of the clip: PSNR and SSIM of what is held out, mouth and lids of all frames and of these."""
    from edit3dgs_ns.runs.trained_run import TrainedRun

    code, folder = training_digest(options.steps), options.out / clip.stem
    if not options.steps or row.get("training_code") == code:
        return
    if row.get("training_begun") != code:
        shutil.rmtree(folder / "avatar", ignore_errors=True)
    row["training_begun"] = code
    run = TrainedRun(train_avatar(folder / "capture", folder / "avatar", options.steps))
    quality = held_out_quality(run)
    row["psnr"], row["ssim"] = quality.psnr, quality.ssim
    rendered, real = FaceSeries.of(_renders(run)), FaceSeries.of(_frames(run))
    row["mouth_correlation"], row["lid_correlation"] = rendered.correlations(real)
    held_out = slice(len(run.split("train")), None)
    row |= held_out_figures(rendered[held_out], real[held_out])
    row["training_code"] = code


def held_out_figures(rendered: FaceSeries, real: FaceSeries) -> Row:
    """Of mouth and lids in the frames that were not trained on: how far they move, how far the avatar is off, and correlations.

    Range and error are in percent of the distance between the eyes. Of a mouth that stays shut a correlation says nothing but how
    the detector flickers: it is null there.
    """
    row: Row = {}
    for name, a, b in (("mouth", rendered.mouth, real.mouth), ("lid", rendered.lids, real.lids)):
        both = np.isfinite(a) & np.isfinite(b)
        moves = 100 * float(np.ptp(b[both])) if both.any() else 0.0
        row[f"held_out_{name}_range_percent"] = moves
        row[f"held_out_{name}_error_percent"] = (
            100 * float(np.abs(a - b)[both].mean()) if both.any() else None
        )
        row[f"held_out_{name}_correlation"] = correlation(a, b) if moves > LEAST_RANGE else None
    return row


def _renders(run: Any) -> Iterator[np.ndarray]:
    """The avatar in every frame, in order."""
    for split in (run.split("train"), run.split("test")):
        for i in range(len(split)):
            yield to_uint8(run.render(split.cameras[i : i + 1]).rgb)


def _frames(run: Any) -> Iterator[np.ndarray]:
    for split in (run.split("train"), run.split("test")):
        for i in range(len(split)):
            yield to_uint8(split.image(i))


def _drive(clip: Path, row: Row, options: argparse.Namespace) -> None:
    """Another avatar, driven by the clip with the command's defaults, against the clip."""
    if options.avatar is None:
        return
    code = f"{driving_digest()}-{options.avatar.resolve()}"
    if row.get("driving_code") == code:
        return
    folder = options.out / clip.stem / "driven"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # A driver is tracked into a folder beside it.
    own = Path(shutil.copy(clip, folder / clip.name))
    video = folder / "driven.mp4"
    command = [
        "edit3dgs",
        "reenact",
        "--load-config",
        str(options.avatar),
        "--motion",
        str(own),
        "--no-driver",
    ]
    words = [*command, "--output", str(video), "--run-name", f"clip-{clip.stem}", "--overwrite"]
    subprocess.run([str(Path(sys.executable).parent / words[0]), *words[1:]], check=True)
    driven, driver = (FaceSeries.of(read_frames(describe_video(path))) for path in (video, own))
    times = np.linspace(0, len(driver.mouth) - 1, len(driven.mouth)).round().astype(int)
    pair = driven.correlations(driver[times])
    row["driven_mouth_correlation"], row["driven_lid_correlation"] = pair
    row["driving_code"] = code


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with the videos")
    parser.add_argument("--only", nargs="+", help="names of clips, without their ending")
    parser.add_argument(
        "--avatar", type=Path, help="config.yml of the avatar to be driven; without it, none is"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training; 0 trains none")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "outputs" / "tracking_clips", help="where everything lands"
    )
    options = parser.parse_args(arguments)
    demo = ROOT / "outputs/demo/base/rigged-splatfacto-fast/run/config.yml"
    if options.avatar is None and demo.is_file():
        options.avatar = demo
    return options


if __name__ == "__main__":
    raise SystemExit(main())
