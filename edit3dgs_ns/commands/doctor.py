"""The command `edit3dgs doctor`: what this machine has, or what is wrong with a capture, and what to do about it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edit3dgs_ns.console import (
    counted,
    duration,
    progress_bars,
    say,
    say_command,
    say_wrapped,
    shown_on,
    working,
)
from edit3dgs_ns.errors import UserError

if TYPE_CHECKING:
    from edit3dgs_ns.capture.check_report import CaptureReport, Problem
    from edit3dgs_ns.machine.finding import Finding


@dataclass(kw_only=True)
class DoctorCommand:
    """Say what this machine has, or what is wrong with a capture, and what to do about it.

    Exit code 0 when the job of `make demo` can run here (with --data: when a training can use the capture), 1 otherwise.
    """

    data: Path | None = None
    """Check this capture instead of the machine: every file that it names, in seconds."""
    thorough: bool = False
    """With --data: decode every image, instead of looking at the first and last bytes of each."""
    repair: Path | None = None
    """With --data: write a mended copy of the capture's transforms into this new folder, where something is wrong that they
    can mend. Images, masks and head parameters are linked, never changed."""
    json: bool = False
    """Print the findings as JSON, for scripts and bug reports."""

    def execute(self) -> int:
        """Checks and prints the findings."""
        if self.data is not None:
            return self._check_capture(self.data)
        if self.thorough:
            raise UserError("--thorough goes with --data DIR: it decodes every image of a capture.")
        if self.repair is not None:
            raise UserError("--repair goes with --data DIR: it writes a mended copy of a capture.")
        with progress_bars(transient=True) as progress, working(progress, "Looking at this machine"):
            from edit3dgs_ns.machine.examination import can_run_demo, examine

            findings = examine()
        ready = can_run_demo(findings)
        if self.json:
            _print_json({"ready": ready, "findings": [asdict(finding) for finding in findings]})
        else:
            print_findings(findings, ready)
        return 0 if ready else 1

    def _check_capture(self, data: Path) -> int:
        from edit3dgs_ns.capture.transforms import check_output, find_capture

        folder = find_capture(data)
        if self.repair is not None:
            check_output(self.repair.expanduser())
        with progress_bars(transient=True) as progress:
            with working(progress, "Loading PyTorch"):
                from edit3dgs_ns.capture.check import check_capture

            began = time.monotonic()
            report = check_capture(folder, thorough=self.thorough, progress=shown_on(progress))
            seconds = time.monotonic() - began
        if self.json:
            _print_json(_capture_as_json(report))
        else:
            _print_capture(report, seconds, self.thorough)
        if self.repair is not None:
            return _write_repaired(report, self.repair.expanduser(), quiet=self.json)
        return 1 if report.problems else 0


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=2))


# -- the machine ------------------------------------------------------------------------------------------------------


def print_findings(findings: Sequence[Finding], ready: bool) -> None:
    """Prints what was found on this machine, by area; below what is not fine, what to do."""
    for area, found in groupby(findings, key=lambda finding: finding.area):
        group = list(found)
        width = max(len(finding.name) for finding in group)
        say(area, "bold")
        for finding in group:
            mark = "MISSING" if finding.required and finding.status == "missing" else finding.status
            say_wrapped(f"  {mark:<7}  {finding.name:<{width}}  ", finding.found)
            if finding.advice:
                say_wrapped(f"  {'':<7}  -> ", finding.advice)
    if ready:
        say("Ready: make demo can run. Other lines than ok matter only for what they name.", "green")
    else:
        say("Not ready: make demo needs what is marked MISSING; do what its line says.", "red")


# -- a capture --------------------------------------------------------------------------------------------------------


def capture_findings(report: CaptureReport) -> list[Finding]:
    """Returns the problems, which training needs solved, and the hints, which it does not, like findings of the machine."""
    wrong = [_finding(p, "missing" if p.missing else "wrong", required=True) for p in report.problems]
    return wrong + [_finding(hint, "warn", required=False) for hint in report.hints]


def _finding(problem: Problem, status: Any, required: bool) -> Finding:
    from edit3dgs_ns.machine.finding import Finding

    return Finding(problem.area, problem.where, status, problem.what, problem.advice, required)


def _capture_as_json(report: CaptureReport) -> dict[str, Any]:
    return {
        "ready": not report.problems,
        "capture": str(report.folder),
        "frames": report.frames,
        "timesteps": report.timesteps,
        "cameras": report.cameras,
        "sizes": report.sizes,
        "decoded_gb": round(report.decoded_bytes / 1e9, 3),
        "faults": [
            {"kind": fault.kind, "what": fault.what, "mended": fault.repair is not None}
            for fault in (report.diagnosis.faults if report.diagnosis else ())
        ],
        "notes": report.diagnosis.notes if report.diagnosis else [],
        "findings": [asdict(finding) for finding in capture_findings(report)],
    }


def _write_repaired(report: CaptureReport, out: Path, quiet: bool) -> int:
    """Writes the mended copy, and returns the exit code: 0 if nothing that training needs solved is left."""
    from edit3dgs_ns.capture.repair import write_repaired

    repairs = [] if report.diagnosis is None else report.diagnosis.repairs
    left = (
        [fault for fault in report.diagnosis.faults if fault.serious and fault.repair is None]
        if report.diagnosis
        else []
    )
    others = (
        len(report.problems) - sum(f.serious for f in report.diagnosis.faults)
        if report.diagnosis
        else len(report.problems)
    )
    if repairs:
        write_repaired(report.folder, out, repairs)
    if not quiet:
        for repair in repairs:
            say(f"Mended: {repair.what}.")
        say(f"The mended capture is in {out}." if repairs else "Nothing that new transforms could mend.")
        if repairs:
            say_command("ns-train", "rigged-splatfacto-fast", "nersemble-data", "--data", out)
    return 1 if left or others or (not repairs and report.problems) else 0


def _print_capture(report: CaptureReport, seconds: float, thorough: bool) -> None:
    say(str(report.folder), "bold")
    say(f"  {_summary(report)}")
    say(f"  {_memory(report)}")
    for note in report.diagnosis.notes if report.diagnosis else ():
        say(f"  Note: {note}.")
    _print_problems("Problems", report.problems, "red")
    _print_problems("To consider", report.hints, "yellow")
    if report.problems:
        say(f"Not ready: {counted(len(report.problems), 'problem')}, after {duration(seconds)}.", "red")
    else:
        say(f"Ready: nothing found that training would stumble over, after {duration(seconds)}.", "green")
    if not thorough:
        say("Images were looked at from outside; --thorough decodes every one.")


def _print_problems(title: str, problems: Iterable[Problem], style: str) -> None:
    """Every problem, with what to do after the last of those it is good for."""
    problems = list(problems)
    if problems:
        say(f"{title}:", style)
    for (area, advice), group in groupby(problems, key=lambda p: (p.area, p.advice)):
        say(f"  {area}")
        for problem in group:
            say(f"    {problem.where} {problem.what}")
        if advice:
            say(f"    -> {advice}")


def _summary(report: CaptureReport) -> str:
    splits = ", ".join(f"{count:,} {split}" for split, count in report.frames.items())
    sizes = ", ".join(f"{width} x {height}" for width, height in report.sizes[:3])
    more = f" and {len(report.sizes) - 3} other sizes" if len(report.sizes) > 3 else ""
    total = sum(report.frames.values())
    return (
        f"{counted(total, 'image')} ({splits}) of {sizes or 'no size'}{more} pixels, from {counted(report.cameras, 'camera')} at "
        f"{counted(report.timesteps, 'timestep')}."
    )


def _memory(report: CaptureReport) -> str:
    return (
        f"{report.decoded_bytes / 1e9:.1f} GB when decoded. Training streams them: of decoded images it keeps no more than "
        "--pipeline.datamanager.cache-gb (1 by default)."
    )
