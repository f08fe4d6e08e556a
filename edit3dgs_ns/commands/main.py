"""The `edit3dgs` command: what Nerfstudio has no command for.

Finds the command that a command line names and runs it. Only that command's file is imported, and everything heavy inside of it
after its cheap checks, so that help and mistakes are answered at once. A mistake of the user (a `UserError`, with what was found
and what to do) is shown as one message and ends with exit code 2. Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import importlib
import inspect
import shutil
import signal
import sys
import textwrap
from collections.abc import Sequence
from difflib import get_close_matches
from types import FrameType
from typing import Any, Protocol, cast

from edit3dgs_ns.console import USER_ERROR_EXIT_CODE
from edit3dgs_ns.errors import UserError, message_of
from edit3dgs_ns.quotes import check_quotes

PROGRAM = "edit3dgs"
INTERRUPTED_EXIT_CODE = 130
TERMINATED_EXIT_CODE = 143
_SIGTERM = "SIGTERM"
COMMANDS = {
    "capture": "capture:CaptureCommand",
    "track": "track:TrackCommand",
    "doctor": "doctor:DoctorCommand",
    "demo": "demo:DemoCommand",
    "import": "import_:ImportCommand",
    "export": "export:ExportCommand",
    "evaluate": "evaluate:EvaluateCommand",
    "sweep": "sweep:SweepCommand",
    "reenact": "reenact:ReenactCommand",
    "orbit": "orbit:OrbitCommand",
    "interpolate": "interpolate:InterpolateCommand",
    "derive": "derive:DeriveCommand",
    "history": "history:HistoryCommand",
}
"""Module in this package and dataclass of each command."""


class Command(Protocol):
    """The options of a command; its docstring is the command's description."""

    def execute(self) -> int:
        """Checks the options, does what they ask for, prints the result, and returns the exit code."""


def main() -> None:
    """Entry point of the console script."""
    # `kill` ends us like Ctrl-C does, so that a training that we started does not go on alone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from edit3dgs_ns.commands.quiet import hide_library_warnings

    hide_library_warnings()
    signal.signal(signal.SIGTERM, _stopped)
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; user errors become one message on stderr."""
    from edit3dgs_ns.console import print_error

    try:
        if not args or args[0] in ("-h", "--help"):
            print(help_text())
            return 0 if args else USER_ERROR_EXIT_CODE
        if args[0] == "--version":
            print(version_text())
            return 0
        return parse(args).execute()
    except KeyboardInterrupt as interrupt:
        print_error("Stopped. The same command goes on from here.")
        return TERMINATED_EXIT_CODE if interrupt.args == (_SIGTERM,) else INTERRUPTED_EXIT_CODE
    except (UserError, OSError) as error:
        message = message_of(error)
        if message is None:
            raise
        print_error(message)
        return USER_ERROR_EXIT_CODE


def _stopped(number: int, frame: FrameType | None) -> None:
    """On SIGTERM: as if somebody had pressed Ctrl-C, so that nothing is left half done."""
    raise KeyboardInterrupt(_SIGTERM)


def parse(args: Sequence[str]) -> Command:
    """Returns the options of a command line.

    Raises:
        ValueError: there is no such command, or a text stands between typographic quotes.
        SystemExit: help was asked for, or tyro has refused the options.
    """
    import tyro

    from edit3dgs_ns.commands.help_texts import with_help

    name = args[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, 1)
        hint = f"Did you mean `{PROGRAM} {near[0]}`?" if near else f"`{PROGRAM} --help` lists them."
        raise UserError(f"{PROGRAM} has no command {name!r}. {hint}")
    check_quotes(PROGRAM, args)
    command: Any = tyro.cli(
        with_help(command_class(name)),
        prog=f"{PROGRAM} {name}",
        args=list(args[1:]),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return cast(Command, command)


def command_class(name: str) -> type:
    """Returns the dataclass with the options of a command."""
    module, _, class_name = COMMANDS[name].partition(":")
    return cast(type, getattr(importlib.import_module(f"edit3dgs_ns.commands.{module}"), class_name))


def help_text() -> str:
    """Returns what `edit3dgs --help` prints: the commands and what they do."""
    width = min(shutil.get_terminal_size().columns, 100)
    indent = 2 + max(map(len, COMMANDS)) + 2
    lines = [
        f"usage: {PROGRAM} [-h] [--version] COMMAND ...",
        "",
        "Edit 3D Gaussian head avatars with words.",
    ]
    lines += ["", "commands:"]
    for name in COMMANDS:
        summary = (inspect.getdoc(command_class(name)) or "").partition("\n")[0]
        start, rest = f"  {name:<{indent - 2}}", " " * indent
        lines += textwrap.wrap(
            summary, width, initial_indent=start, subsequent_indent=rest, break_on_hyphens=False
        )
    return "\n".join([*lines, "", f"`{PROGRAM} COMMAND --help` lists the options of a command."])


def version_text() -> str:
    """Returns what `edit3dgs --version` prints."""
    from importlib.metadata import version

    return f"{PROGRAM} {version('edit3dgs-ns')}"


if __name__ == "__main__":
    main()
