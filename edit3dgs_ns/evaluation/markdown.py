"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_lines(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column holds names, and the others numbers, at the right; a | in a heading is not a border."""
    names = [heading.replace("|", "\\|") for heading in headings]
    lines = [_line(names), "|---|" + "---:|" * (len(names) - 1)]
    return "\n".join([*lines, *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)
