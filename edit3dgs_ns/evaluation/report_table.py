"""The table of an evaluation, for the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from rich.markup import escape
from rich.table import Table

from edit3dgs_ns.console import CONSOLE, fits, say, say_wrapped
from edit3dgs_ns.evaluation.markdown import markdown_lines
from edit3dgs_ns.evaluation.published import PUBLISHED
from edit3dgs_ns.evaluation.report_data import METRICS, SETTINGS, Figure, Report, RunReport, formatted, mean

_ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}


def sections(report: Report) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """(heading, rows of (metric, one cell for each of `columns`)); rows and sections without any value are left out."""
    for key, title in SETTINGS.items():
        frames = sorted({run.settings[key].frames for run in report.runs if key in run.settings})
        counted = f"{title} ({', '.join(map(str, frames))} frames)"
        yield from _section(report, counted, partial(_of_setting, key=key))
    yield from _section(report, "The edited avatar", lambda run: run.figures)
    for key, title in SETTINGS.items():
        name = f"The avatar before the edit: {title.lower()}"
        yield from _section(report, name, partial(_quality, key=key))


def columns(report: Report) -> list[str]:
    """Column headings: the runs, and a mean where there are several."""
    names = [run.name for run in report.runs]
    return [*names, "mean"] if len(names) > 1 else names


def print_report(report: Report) -> None:
    """Prints the table of a report; where the terminal is too narrow for all runs side by side, one below the other."""
    table = rich_table(report)
    if fits(table):
        CONSOLE.print(table)
        return
    for number, name in enumerate(columns(report)):
        say(name, "bold")
        CONSOLE.print(_one_column(report, number))
    for line in _footer(report):
        say_wrapped("", line)


def rich_table(report: Report) -> Table:
    """The table for a terminal; the published figures and the notes are its footer."""
    caption = "\n".join(escape(line) for line in _footer(report))
    table = Table(caption_justify="left", caption=caption)
    table.add_column("")
    for name in columns(report):
        table.add_column(escape(name), justify="right")
    _add_rows(table, report, slice(None))
    return table


def _one_column(report: Report, number: int) -> Table:
    """The table of one run alone, without its name."""
    table = Table(show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    _add_rows(table, report, slice(number, number + 1))
    return table


def _add_rows(table: Table, report: Report, shown_columns: slice) -> None:
    for heading, rows in sections(report):
        table.add_row(f"[bold]{escape(heading)}[/bold]")
        for number, (name, cells) in enumerate(rows):
            table.add_row(f"  {escape(name)}", *cells[shown_columns], end_section=number == len(rows) - 1)


def markdown_table(report: Report) -> str:
    """The table in Markdown."""
    names, rows = columns(report), []
    for heading, of_section in sections(report):
        rows.append([f"**{heading}**", *[""] * len(names)])
        rows += [[name, *cells] for name, cells in of_section]
    return markdown_lines(["", *names], rows)


def published_lines(report: Report) -> list[str]:
    """The published figures of the settings that the report has."""
    present = [key for key in SETTINGS if any(key in run.settings for run in report.runs)]
    return [
        f"{source}: "
        + "; ".join(
            f"{SETTINGS[key].lower()} CLIP-S {values[key][0]:.3f}, CLIP-C {values[key][1]:.3f}"
            for key in present
        )
        for source, values in PUBLISHED.items()
        if present
    ]


def _footer(report: Report) -> list[str]:
    return [*report.notes[:1], *published_lines(report), *report.notes[1:]]


def _section(
    report: Report, heading: str, figures_of: Callable[[RunReport], Mapping[str, Figure]]
) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    rows = []
    for key, metric in METRICS.items():
        figures = [figures_of(run).get(key) for run in report.runs]
        cells = [formatted(metric, figure) for figure in figures]
        if len(figures) > 1:
            known = [f.value for f in figures if f is not None and f.value is not None]
            cells.append(formatted(metric, Figure(mean(known))))
        if any(cell != "–" for cell in cells):
            rows.append((report.title(key) + _ARROWS[metric.better], cells))
    if rows:
        yield heading, rows


def _of_setting(run: RunReport, key: str) -> dict[str, Figure]:
    return run.settings[key].figures if key in run.settings else {}


def _quality(run: RunReport, key: str) -> dict[str, Figure]:
    return {name: Figure(value) for name, value in run.base_quality.get(key, {}).items()}
