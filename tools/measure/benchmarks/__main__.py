"""`make bench`: measures what is meant to be fast on this machine; outputs/bench.json and a table.

    python -m tools.measure.benchmarks                               # everything
    python -m tools.measure.benchmarks --only rasterizer             # other sections stay as they are in the file
    python -m tools.measure.benchmarks --only rasterizer --fresh     # runs the slow reference anew
    python -m tools.measure.benchmarks --missing                     # only the sections that the file lacks

Every ratio is one of two measurements of this run. One exception: the reference rasterizer takes about a minute per image, so
its time is kept in the file (under `machine`) and used again on the same machine with the same versions, unless `--fresh`.

A section is a module with `measure(console) -> dict`. Its figures go into the table; those named in SECTIONS into the file.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.measure.benchmarks import common

ROOT = Path(__file__).resolve().parents[3]
THREADS = 2
"""What the aims are stated for; fewer where the machine has fewer."""


@dataclass(frozen=True)
class Aim:
    """What a figure should be."""

    kind: str
    """">=" at least, "<=" at most, "==" exactly."""
    value: float | bool

    def met(self, figure: Any) -> bool:
        """Whether a figure reaches it."""
        if self.kind == "==":
            return bool(figure == self.value)
        return bool(figure >= self.value if self.kind == ">=" else figure <= self.value)

    def __str__(self) -> str:
        return str(self.value) if self.kind == "==" else f"{self.kind} {self.value:g}"


SECTIONS: dict[str, dict[str, Aim | None]] = {
    "rasterizer": {
        "speedup_vs_torch_ref": Aim(">=", 300),
        "ns_per_pair_forward": Aim("<=", 1.2),
        "ns_per_pair_backward": Aim("<=", 4.0),
        "fraction_of_limit_forward": Aim(">=", 0.5),
        "fraction_of_limit_backward": Aim(">=", 0.5),
        "thread_speedup": Aim(">=", 1.7),
        "bitwise_equal_across_threads": Aim("==", True),
        "first_call_s": Aim("<=", 40),
        "cached_call_s": Aim("<=", 1),
    },
    "avatar_frame": {
        "fps": Aim(">=", 10),
        "rig_fraction": Aim("<=", 0.15),
        "gaussians": None,
        "width": None,
        "height": None,
    },
    "training_step": {
        "ratio_to_rasterizer": Aim("<=", 2.0),
        "milliseconds": None,
    },
    "edit": {
        "speedup": Aim(">=", 1.5),
        "agreement_time_ratio": Aim("<=", 1.25),
        "agreement_memory_ratio": Aim("<=", 1.25),
    },
    "start": {
        "help_s": Aim("<=", 0.5),
        "ns_train_help_extra_s": Aim("<=", 0.3),
        "viewer_first_frame_s": Aim("<=", 6.0),
    },
    "reenactment": {
        "fps_ratio": Aim(">=", 0.9),
    },
    "viewer": {
        "slider_response_s": Aim("<=", 0.5),
    },
    "streaming": {
        "extra_peak_gb": Aim("<=", 1.5),
        "steps_per_second_ratio": Aim(">=", 0.9),
        "seconds_to_first_step": Aim("<=", 30),
        "images": None,
    },
}
"""The figures of bench.json, section by section, with their aims."""


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, writes. Returns 0 also where an aim is missed: the table says so."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to measure"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "bench.json", help="the file to write")
    parser.add_argument("--fresh", action="store_true", help="measure the reference rasterizer again")
    parser.add_argument("--missing", action="store_true", help="leave sections that are in the file alone")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 132)

    known = common.read_json(options.out)
    machine = common.machine(min(THREADS, os.cpu_count() or 1))
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
    results: dict[str, Any] = {name: known[name] for name in SECTIONS if name in known}
    known_machine = known.get("machine", {})
    if common.same_machine(known_machine, machine):
        machine = {**known_machine, **machine}  # what other sections have found out about it
    for name in options.only:
        if options.missing and name in results:
            continue
        measure = _measurement(name, machine, {} if options.fresh else known_machine)
        figures = measure(console)
        missing = [key for key in SECTIONS[name] if key not in figures]
        assert not missing, f"section {name} lacks {missing}"
        results[name] = {key: figures[key] for key in SECTIONS[name]}
        results["machine"] = machine
        common.write_json(
            options.out, results
        )  # after each section: an interrupted run keeps what it measured
        console.print(_table(name, figures, machine))
    console.print(f"Written to {options.out}")
    return 0


def _measurement(
    name: str, machine: dict[str, Any], known_machine: dict[str, Any]
) -> Callable[[Console], dict]:
    """The section's `measure`. Imported here: a run of one section loads nothing of the others."""
    if name == "rasterizer":
        from tools.measure.benchmarks import rasterizer

        return partial(rasterizer.measure, machine=machine, known_machine=known_machine)
    if name == "avatar_frame":
        from tools.measure.benchmarks import avatar_frame

        return partial(avatar_frame.measure, threads=machine["threads"])
    if name == "training_step":
        from tools.measure.benchmarks import training_step

        return partial(training_step.measure, threads=machine["threads"])
    if name == "edit":
        from tools.measure.benchmarks import edit

        return partial(edit.measure, threads=machine["threads"])
    if name == "start":
        from tools.measure.benchmarks import start

        return start.measure
    if name == "reenactment":
        from tools.measure.benchmarks import reenactment

        return partial(reenactment.measure, threads=machine["threads"])
    if name == "viewer":
        from tools.measure.benchmarks import viewer

        return viewer.measure
    from tools.measure.benchmarks import streaming

    return streaming.measure


def _table(name: str, figures: dict[str, Any], machine: dict[str, Any]) -> Table:
    aims = SECTIONS[name]
    title = f"{name} ({machine['cpu']}, {machine['threads']} of {machine['cores']} cores)"
    table = Table("figure", "measured", "aim", "", title=title, title_justify="left")
    for key, value in figures.items():
        aim = aims.get(key)
        verdict = "" if aim is None else ("reached" if aim.met(value) else "missed")
        table.add_row(key, common.shown(value), "" if aim is None else str(aim), verdict)
    return table


if __name__ == "__main__":
    sys.exit(main())
