"""Checks that what a capture says agrees with what its images show (`diagnosis`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from edit3dgs_ns.capture.check_report import Area, CaptureReport, Problem, Progress
from edit3dgs_ns.capture.diagnosis import Diagnosis, Fault, diagnose
from edit3dgs_ns.capture.transforms import FrameEntry
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.loading import load_assets

_EXPLAINED = {
    "image size": "the capture's transforms say",
    "turned": "the capture's transforms say",
    "mirrored": "that is no rotation and translation",
    "unit": "from the origin (median); expected metres",
}
"""Problems of single frames that a fault of the whole capture explains, by a piece of their message."""


def check_content(
    report: CaptureReport,
    frames: Sequence[FrameEntry],
    heads: Collection[str],
    flame_model: Path | None,
    progress: Progress | None,
) -> None:
    """Adds to the report.

    Args:
        heads: the head models that the transforms files name.
        flame_model: the user's choice; None for the default.
    """
    if any(problem.area == "Head" for problem in report.problems) or not frames:
        return
    if progress is not None:
        progress("Comparing head and images", 0, 1)
    report.diagnosis = diagnose_capture(frames, heads, flame_model)
    for fault in report.diagnosis.faults:
        piece = _EXPLAINED.get(fault.kind)
        if piece is not None:
            report.problems = [p for p in report.problems if piece not in p.what]
            report.hints = [p for p in report.hints if piece not in p.what]
    for fault in report.diagnosis.faults:
        (report.problems if fault.serious else report.hints).append(_problem(report.folder, fault))
    if progress is not None:
        progress("Comparing head and images", 1, 1)


def diagnose_capture(
    frames: Sequence[FrameEntry], heads: Collection[str], flame_model: Path | None, all_frames: bool = True
) -> Diagnosis:
    """The diagnosis with the head model that training would load.

    Raises:
        ValueError, FileNotFoundError: the head model is missing, or the parameters do not fit it.
    """
    if flame_model is None and set(heads) == {"open-head"}:
        flame_model = OPEN_HEAD_PATH
    return diagnose(frames, load_assets(flame_model), all_frames)


def _problem(folder: Path, fault: Fault) -> Problem:
    subject = fault.what.partition(" ")[0]
    area: Area = "Masks" if subject == "masks" else "Images" if subject == "images" else "Cameras"
    advice = fault.advice
    if fault.repair is not None:
        advice = f"{advice} --repair OUT writes a mended copy.".lstrip()
    return Problem(area, f"{folder}:", fault.what, advice)
