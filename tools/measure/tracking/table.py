"""Measured rows as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edit3dgs_ns.evaluation.markdown import markdown_lines


def table(heading: str, rows: Mapping[str, Mapping[str, Any]], figures: Sequence[str], digits: int) -> str:
    """The table; a figure that a row lacks leaves its cell empty.

    Args:
        heading: of the column with the rows' names.
        figures: names of the columns, keys of the rows.
        digits: after the decimal point.
    """
    cells = (
        [name, *(f"{row[figure]:.{digits}f}" if figure in row else "" for figure in figures)]
        for name, row in rows.items()
    )
    return markdown_lines([heading, *figures], cells)
