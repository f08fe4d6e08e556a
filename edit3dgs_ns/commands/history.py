"""The command `edit3dgs history`: which edits made an avatar, and going back to any of them."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from edit3dgs_ns.errors import UserError

if TYPE_CHECKING:
    from edit3dgs_ns.edit_training.versions import RunHistory


def history_command(
    run: tyro.conf.Positional[Path], *, go_back: int | None = None, undo: bool = False, json: bool = False
) -> int:
    """Show which edits made a run's avatar, or go back to any of them, bit for bit.

    Nothing is lost by going back: later versions stay, and going forward is going "back" to one of them.

    Args:
        run: The run: its folder or its config.yml.
        go_back: Make this version the run's avatar.
        undo: Make what was edited last the run's avatar.
        json: Print the versions as JSON.
    """
    from edit3dgs_ns.console import CONSOLE
    from edit3dgs_ns.edit_training.versions import FOLDER, RunHistory
    from edit3dgs_ns.training.checkpoints import CHECKPOINT_FOLDER, find_checkpoint

    if go_back is not None and undo:
        raise UserError("--go-back and --undo: give one of them.")
    folder = Path(run).expanduser()
    folder = folder.parent if folder.is_file() or folder.name in (FOLDER, CHECKPOINT_FOLDER) else folder
    if not (folder / FOLDER).is_dir():
        find_checkpoint(folder, "RUN", "a run of ns-train")  # says what is wrong
    history = RunHistory(folder)
    if undo:
        history.undo()
    elif go_back is not None:
        history.go_back(go_back)
    if json:
        content = {
            "current": history.current.number,
            "versions": [asdict(version) for version in history.versions],
        }
        print(json_format.dumps(content, indent=1))
        return 0
    CONSOLE.print(history_table(history))
    config = folder / "config.yml"
    if undo or go_back is not None:
        number = history.current.number
        CONSOLE.print(f"The run's avatar is version {number} now. Look at it:", highlight=False)
        CONSOLE.print(f"  ns-viewer --load-config {config}", highlight=False, soft_wrap=True)
    elif len(history.versions) > 1:
        CONSOLE.print(
            f"Go back to any of them: edit3dgs history {run} --go-back N", highlight=False, soft_wrap=True
        )
    return 0


def history_table(history: RunHistory) -> object:
    """The versions as a table of rich."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("version", "edit", "of", "step", "made (UTC)", title_justify="left")
    current = history.current.number
    for version in history.versions:
        number = f"{version.number} (now)" if version.number == current else str(version.number)
        table.add_row(
            number,
            "the avatar as trained" if version.prompt is None else escape(version.prompt),
            "" if version.parent is None else str(version.parent),
            str(version.step),
            version.made[:19].replace("T", " "),
            style="bold" if version.number == current else None,
        )
    return table
