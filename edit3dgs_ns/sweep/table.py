"""The table of a sweep: a row for every edit, and means over subjects and seeds for every prompt and editor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean, stdev
from typing import Any

from edit3dgs_ns.sweep.plan import Cell

COLUMNS = ("clip_s", "clip_c", "identity", "truth_psnr", "change_on_head")
"""Figures of each setting, as far as they were measured; see `report_data.METRICS`."""


@dataclass(frozen=True)
class Row:
    """One edit, or a mean over several."""

    subject: str
    prompt: str
    seed: str
    editor: str
    figures: dict[str, float] = field(default_factory=dict)
    """By "setting figure"; empty for an edit that is missing."""
    spread: dict[str, float] = field(default_factory=dict)
    """Standard deviation, of means."""
    edits: int = 1


@dataclass(frozen=True)
class SweepTable:
    """All rows."""

    rows: list[Row]
    means: list[Row]
    columns: list[str]


def table_of(results: Sequence[tuple[Cell, Mapping[str, Any]]]) -> SweepTable:
    """The table of some edits.

    Args:
        results: each with its report.json; an empty one where it is missing.
    """
    rows = [
        Row(cell.subject.name, cell.prompt.prompt, str(cell.seed), cell.editor, _figures(report))
        for cell, report in results
    ]
    known = dict.fromkeys(column for row in rows for column in row.figures)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.prompt, row.editor), []).append(row)
        groups.setdefault(("all", row.editor), []).append(row)
    means = [_mean(prompt, editor, members) for (prompt, editor), members in groups.items()]
    return SweepTable(rows, sorted(means, key=lambda row: (row.editor, row.prompt == "all")), list(known))


def _figures(report: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for run in report.get("runs", [])[:1]:
        for setting, measured in run.get("settings", {}).items():
            for name in COLUMNS:
                value = measured.get("figures", {}).get(name, {}).get("value")
                if value is not None:
                    found[f"{setting} {name}"] = float(value)
    return found


def _mean(prompt: str, editor: str, rows: Sequence[Row]) -> Row:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.figures.items():
            values.setdefault(name, []).append(value)
    return Row(
        "mean",
        prompt,
        "all",
        editor,
        {name: mean(found) for name, found in values.items()},
        {name: stdev(found) if len(found) > 1 else 0.0 for name, found in values.items()},
        sum(bool(row.figures) for row in rows),
    )


def as_json(table: SweepTable) -> str:
    """For programs."""
    return json.dumps(asdict(table), indent=1) + "\n"


def as_markdown(table: SweepTable) -> str:
    """For readers."""
    head = ["subject", "prompt", "seed", "editor", *table.columns, "edits"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in [*table.rows, *table.means]:
        cells = [row.subject, row.prompt.replace("|", "\\|"), row.seed, row.editor]
        cells += [_cell(row, column) for column in table.columns]
        lines.append("| " + " | ".join([*cells, str(row.edits) if row.figures else "missing"]) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Row, column: str) -> str:
    if column not in row.figures:
        return "–"
    text = f"{row.figures[column]:.4g}"
    return f"{text} ± {row.spread[column]:.2g}" if column in row.spread else text
