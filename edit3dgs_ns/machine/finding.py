"""What a check of this machine or of a capture has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "missing", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    area: str
    """Group in the table, e.g. `Packages`."""
    name: str
    """What was looked for."""
    status: Status
    """`ok`: fine. `warn`: there, but untested or of no use as it is. `missing`: not there. `wrong`: there, but
    damaged or at odds with the rest (files of a capture)."""
    found: str
    """What was found, or where it was looked for."""
    advice: str = ""
    """What it is good for and what to do; empty when nothing is to be done."""
    required: bool = False
    """Whether `make demo` needs it; for a capture, whether training does."""
