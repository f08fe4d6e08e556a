"""The command `edit3dgs sweep`: many edits of many avatars, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from edit3dgs_ns.console import say


@dataclass(kw_only=True)
class SweepCommand:
    """Train, edit and evaluate subjects x prompts x seeds x editors of a plan, and put the figures into one table.

    What is done is kept: the same command goes on where it was stopped, here or on a Ray cluster.
    """

    plan: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PLAN")]
    """A TOML file; the documentation has an example."""

    def execute(self) -> int:
        """Does what is not done yet, and names the table."""
        from edit3dgs_ns.sweep.plan import read_plan

        plan = read_plan(self.plan)
        from edit3dgs_ns.sweep.run import run_sweep

        failed = run_sweep(plan)
        say(f"Table: {plan.output / 'table.md'}")
        return 1 if failed else 0
