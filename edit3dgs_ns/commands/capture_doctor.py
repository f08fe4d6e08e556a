"""`edit3dgs doctor --data DIR`: every problem of a capture, as text or as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from edit3dgs_ns.capture.check import check_capture
from edit3dgs_ns.capture.check_report import CaptureReport, Problem, Progress
from edit3dgs_ns.capture.transforms import find_capture
from edit3dgs_ns.commands.machine_doctor import Finding
from edit3dgs_ns.console import CONSOLE, ERROR_CONSOLE


def main(data: Path, thorough: bool = False, as_json: bool = False) -> int:
    """Check a capture, print what is wrong with it, return the exit code (0: nothing that training needs; 1: something).

    Raises:
        FileNotFoundError, ValueError: there is no capture, or more than one.
    """
    folder = find_capture(data)
    began = time.perf_counter()
    report = _check_with_progress(folder, thorough)
    if as_json:
        print(json.dumps(_as_json(report), indent=2))
    else:
        _print(report, time.perf_counter() - began, thorough)
    return 1 if report.problems else 0


def findings(report: CaptureReport) -> list[Finding]:
    """The problems, which training needs solved, and the hints, which it does not; like those of `edit3dgs doctor`."""
    wrong = [_finding(p, "missing" if p.missing else "wrong", required=True) for p in report.problems]
    return wrong + [_finding(hint, "warn", required=False) for hint in report.hints]


def _finding(problem: Problem, status: Any, required: bool) -> Finding:
    return Finding(problem.area, problem.where, status, problem.what, problem.advice, required)


def _check_with_progress(folder: Path, thorough: bool) -> CaptureReport:
    """The bar goes to stderr, and vanishes: stdout is for the result alone."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=ERROR_CONSOLE, transient=True) as bar:
        jobs: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in jobs:
                jobs[what] = bar.add_task(what)
            bar.update(jobs[what], completed=done, total=total)

        progress: Progress = show
        return check_capture(folder, thorough=thorough, progress=progress)


def _as_json(report: CaptureReport) -> dict[str, Any]:
    return {
        "ready": not report.problems,
        "capture": str(report.folder),
        "frames": report.frames,
        "timesteps": report.timesteps,
        "cameras": report.cameras,
        "sizes": report.sizes,
        "decoded_gb": round(report.decoded_bytes / 1e9, 3),
        "findings": [asdict(finding) for finding in findings(report)],
    }


def _print(report: CaptureReport, seconds: float, thorough: bool) -> None:
    _line(str(report.folder), "bold")
    _line(f"  {_summary(report)}")
    _line(f"  {_memory(report)}")
    _print_list("Problems", report.problems, "red")
    _print_list("To consider", report.hints, "yellow")
    if report.problems:
        _line(f"Not ready: {len(report.problems):,} problems, after {seconds:.1f} s.", "red")
    else:
        _line(f"Ready: nothing found that training would stumble over, after {seconds:.1f} s.", "green")
    if not thorough:
        _line("Images were looked at from outside; --thorough decodes every one.")


def _print_list(title: str, problems: Sequence[Problem], style: str) -> None:
    """Every problem, with what to do after the last of those it is good for."""
    if problems:
        _line(f"{title}:", style)
    for (area, advice), group in groupby(problems, key=lambda p: (p.area, p.advice)):
        _line(f"  {area}")
        for problem in group:
            _line(f"    {problem.where} {problem.what}")
        if advice:
            _line(f"    -> {advice}")


def _line(text: str, style: str | None = None) -> None:
    CONSOLE.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _summary(report: CaptureReport) -> str:
    splits = ", ".join(f"{count:,} {split}" for split, count in report.frames.items())
    sizes = ", ".join(f"{width} x {height}" for width, height in report.sizes[:3])
    more = f" and {len(report.sizes) - 3} other sizes" if len(report.sizes) > 3 else ""
    total = sum(report.frames.values())
    return (
        f"{total:,} images ({splits}) of {sizes or 'no size'}{more} pixels, from {report.cameras} cameras at "
        f"{report.timesteps:,} timesteps."
    )


def _memory(report: CaptureReport) -> str:
    return (
        f"{report.decoded_bytes / 1e9:.1f} GB when decoded. Training streams them: of decoded images it keeps no more than "
        "--pipeline.datamanager.cache-gb (1 by default)."
    )
