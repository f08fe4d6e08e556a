"""Checks of the head's parameters: every file can be read, all belong to one person, and they fit the head model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edit3dgs_ns.capture.check_report import CaptureReport, Problem, Progress, in_parallel, listed
from edit3dgs_ns.capture.transforms import FrameEntry, shares_one_motion_file
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.splats.rig import TrackedHead

_READERS = 4


def check_head(
    report: CaptureReport,
    frames: Sequence[FrameEntry],
    heads: set[str],
    flame_model: Path | None,
    progress: Progress | None,
) -> None:
    """Adds to the report.

    Args:
        heads: the head models that the transforms files name.
        flame_model: the user's choice; None for the default.
    """
    paths = list(dict.fromkeys(f.flame for f in frames if f.flame is not None))
    shared = shares_one_motion_file(frames)
    read = FlameMotion.load if shared else FlameMotion.load_frame
    motions = in_parallel(lambda path: _result(read, path), paths, _READERS, "Head parameters", progress)
    first: tuple[Path, FlameMotion] | None = None
    for path, motion in zip(paths, motions, strict=True):
        if not isinstance(motion, FlameMotion):
            missing = isinstance(motion, FileNotFoundError)
            what = str(motion).removeprefix(str(path)).lstrip(": ")
            report.problems.append(
                Problem("Head", str(path), what, "Export the tracking again.", missing=missing)
            )
        elif first is None:
            first = (path, motion)
        else:
            _compare(report, path, motion, *first)
        if shared and isinstance(motion, FlameMotion):
            _check_rows(report, path, motion, frames)
    if first is not None:
        _check_model(report, *first, heads, flame_model)


def _result(read: Callable[[Path], FlameMotion], path: Path) -> FlameMotion | Exception:
    try:
        return read(path)
    except (ValueError, FileNotFoundError) as error:
        return error


def _check_rows(report: CaptureReport, path: Path, motion: FlameMotion, frames: Sequence[FrameEntry]) -> None:
    """A file with all timesteps has a row for each that the images show."""
    shown = {f.timestep_index for f in frames if f.flame == path}
    beyond = sorted(index for index in shown if not 0 <= index < len(motion))
    if beyond:
        what = f"has {len(motion)} rows; the transforms name timestep_index {listed(beyond)}"
        report.problems.append(Problem("Head", str(path), what, "Export the tracking again."))


def _compare(
    report: CaptureReport, path: Path, motion: FlameMotion, first_path: Path, first: FlameMotion
) -> None:
    try:
        FlameMotion.concat([first, motion])
    except ValueError as error:
        other_lengths = motion.expr.shape[1] != first.expr.shape[1] or motion.shape.shape != first.shape.shape
        what = f"does not go with {first_path}: {error}"
        if other_lengths:
            report.problems.append(Problem("Head", str(path), what, "Track all sequences with one model."))
        else:
            advice = f"Training takes shape and static offset of {first_path} for all timesteps."
            report.hints.append(Problem("Head", str(path), what, advice))


def _check_model(
    report: CaptureReport, path: Path, motion: FlameMotion, heads: set[str], flame_model: Path | None
) -> None:
    """The parameters fit the head model that training would load."""
    if flame_model is None and heads == {"open-head"}:
        flame_model = OPEN_HEAD_PATH
    try:
        TrackedHead(FlameModel.from_assets(load_assets(flame_model)), motion)
    except (ValueError, FileNotFoundError) as error:
        advice = "Name the FLAME model of the tracker: set FLAME_MODEL_PATH, or give training --flame-model."
        report.problems.append(Problem("Head", str(path), f"does not fit the head model: {error}", advice))
