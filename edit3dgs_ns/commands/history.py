"""The command `edit3dgs history`: which edits made an avatar, and going back to any of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from edit3dgs_ns.console import say, say_command
from edit3dgs_ns.errors import UserError

if TYPE_CHECKING:
    from edit3dgs_ns.edit_training.versions import RunHistory, Version


@dataclass(kw_only=True)
class HistoryCommand:
    """Show which edits made a run's avatar, or go back to any of them, bit for bit; or scale an edit of expression.

    Nothing is lost by going back: later versions stay, and going forward is going "back" to one of them.
    """

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """The run: its folder or its config.yml."""
    load_config: Path | None = None
    """The same as an option, as other commands take it."""
    go_back: int | None = None
    """Make this version the run's avatar."""
    undo: bool = False
    """Make what was edited last the run's avatar."""
    expression_scale: float | None = None
    """Add a version with this much of the offset that an edit of expression ("make her smile") has given the motion, and make it
    the run's avatar: 0 (none) to 2; 1 is as it was fitted."""
    json: bool = False
    """Print the versions as JSON."""

    def execute(self) -> int:
        """Goes back if that is asked for, and prints the versions."""
        asked = {
            "--go-back": self.go_back is not None,
            "--undo": self.undo,
            "--expression-scale": self.expression_scale is not None,
        }
        if sum(asked.values()) > 1:
            raise UserError(
                f"{' and '.join(name for name, given in asked.items() if given)}: give one of them."
            )
        run = self._run()
        history = open_history(run)
        if self.undo:
            history.undo()
        elif self.go_back is not None:
            history.revert_to(self.go_back)
        elif self.expression_scale is not None:
            from edit3dgs_ns.edit_training.expression.scaling import scale_expression

            scale_expression(history, self.expression_scale)
        if self.json:
            content = {
                "current": history.current.number,
                "versions": [asdict(version) for version in history.versions],
            }
            print(json.dumps(content, indent=1))
            return 0
        print_versions(history)
        if any(asked.values()):
            say(f"The run's avatar is version {history.current.number} now. Look at it:")
            say_command("ns-viewer", "--load-config", history.run / "config.yml")
        elif len(history.versions) > 1:
            say("Go back to any of them:")
            say_command("edit3dgs", "history", run, "--go-back", "N")
        return 0

    def _run(self) -> Path:
        if (self.run is None) == (self.load_config is None):
            what = "neither is given" if self.run is None else "both are given"
            raise UserError(
                f"RUN or --load-config RUN/config.yml names the run; {what}, expected one of the two."
            )
        run = self.run or self.load_config
        assert run is not None
        return run


def open_history(run: Path) -> RunHistory:
    """Returns the history of the run that a path means: its folder, its config.yml, or a folder in it."""
    from edit3dgs_ns.edit_training.versions import FOLDER, RunHistory
    from edit3dgs_ns.splats.checkpoints import CHECKPOINT_FOLDER, find_checkpoint

    folder = run.expanduser()
    folder = folder.parent if folder.is_file() or folder.name in (FOLDER, CHECKPOINT_FOLDER) else folder
    if not (folder / FOLDER).is_dir():
        find_checkpoint(folder, "RUN", "a run of ns-train")  # says what is wrong
    return RunHistory(folder)


def print_versions(history: RunHistory) -> None:
    """Prints the versions as a table."""
    from edit3dgs_ns.console import print_table
    from edit3dgs_ns.edit_training.expression.described import described_expression

    current = history.current.number
    rows: list[tuple[str, ...]] = [_row(version, version.number == current) for version in history.versions]
    titles: tuple[str, ...] = ("version", "edit", "of", "step", "made (UTC)")
    said = [described_expression(version) for version in history.versions]
    if any(said):
        titles = (*titles, "expression")
        rows = [(*row, words) for row, words in zip(rows, said, strict=True)]
    print_table(titles, rows)


def _row(version: Version, is_current: bool) -> tuple[str, ...]:
    return (
        f"{version.number} (now)" if is_current else str(version.number),
        "the avatar as trained" if version.prompt is None else version.prompt,
        "" if version.parent is None else str(version.parent),
        str(version.step),
        version.made[:19].replace("T", " "),
    )
