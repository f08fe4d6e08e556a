"""Writes the files of an evaluation: report.json, and report.md with its images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from edit3dgs_ns.evaluation.report_data import METRICS, SETTINGS, Report
from edit3dgs_ns.evaluation.report_table import markdown_table, published_lines
from edit3dgs_ns.files import written_beside


def write_report(
    report: Report,
    folder: Path,
    before_after: Path | None = None,
    plots: Mapping[str, Path] | None = None,
    truth: Path | None = None,
) -> tuple[Path, Path]:
    """Write report.json and report.md.

    Args:
        report: the results.
        folder: of the two files; the images are in it already.
        before_after: the before/after comparison grid.
        plots: plots of figures over time, by key of SETTINGS.
        truth: the comparison grid with true edits.

    Returns:
        The two files.
    """
    as_json, as_text = folder / "report.json", folder / "report.md"
    _write(as_json, report.to_json())
    _write(as_text, _markdown(report, before_after, plots or {}, truth))
    return as_json, as_text


def _markdown(
    report: Report, before_after: Path | None, plots: Mapping[str, Path], truth: Path | None
) -> str:
    parts = ["# Before and after", _run_list(report)]
    if before_after is not None:
        parts.append(f"![Before and after]({before_after.name})")
    if truth is not None:
        parts.append(
            "Ground truth of the edit, ray traced from the synthetic capture, below the run's renders:\n\n"
            f"![True edits]({truth.name})"
        )
    parts.append(markdown_table(report))
    parts.append(_listed(report.notes))
    if published_lines(report):
        parts += ["## Published figures", _listed(published_lines(report))]
    if plots:
        parts.append("## Over time")
        parts += [f"![{SETTINGS[key]}]({path.name})" for key, path in plots.items()]
    parts += ["## Definitions", _listed(_definitions(report))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _run_list(report: Report) -> str:
    lines = []
    for run in report.runs:
        lines.append(
            f"**{_plain(run.name)}**: “{_plain(run.prompt)}”, with {_plain(run.editor)}. From “{_plain(run.source_caption)}” to "
            f"“{_plain(run.target_caption)}”. "
            f"`{run.run}`"
        )
    return _listed(lines) + f"\n\nCLIP: `{report.clip}`. Identity: {report.identity}."


def _plain(text: object) -> str:
    """Text that is nothing but itself in Markdown, which may hold HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#!|~$&])", r"\\\1", " ".join(str(text).split()))


def _definitions(report: Report) -> list[str]:
    used = {name for run in report.runs for name in run.figures}
    used |= {name for run in report.runs for setting in run.settings.values() for name in setting.figures}
    used |= {name for run in report.runs for quality in run.base_quality.values() for name in quality}
    return [
        f"**{metric.title}**{f' ({metric.better} is better)' if metric.better else ''}: {metric.definition}."
        for key, metric in METRICS.items()
        if key in used
    ]


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _write(path: Path, text: str) -> None:
    with written_beside(path) as partial:
        partial.write_text(text, encoding="utf-8")
