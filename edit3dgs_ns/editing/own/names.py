"""Names of editors of one's own: `command:PROGRAM` and `python:package.module:factory`. Needs neither PyTorch nor diffusers."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edit3dgs_ns.errors import MissingFileError, UserError

OPTION = "--pipeline.editor.model"
_FACTORY = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<factory>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class OwnEditor:
    """What such a name says."""

    kind: Literal["command", "python"]
    name: str
    """As it was given."""
    words: tuple[str, ...]
    """The program and its arguments; or the module and the factory."""


def own_editor(model: str | Path) -> OwnEditor | None:
    """What a name of an editor of one's own means, after checking what can be known at once; None for any other name.

    Raises:
        UserError, MissingFileError: it has one of the two prefixes, and something else is wrong with it.
    """
    kind, colon, rest = str(model).strip().partition(":")
    if not colon or not isinstance(model, str):
        return None
    if kind == "command":
        return OwnEditor("command", model, _program(model, rest))
    if kind == "python":
        found = _FACTORY.fullmatch(rest)
        if found is None:
            raise UserError(
                f"{OPTION} {model}: expected python:package.module:factory, where the module can be imported and the factory is "
                "called without arguments and returns an Editor."
            )
        return OwnEditor("python", model, (found["module"], found["factory"]))
    return None


def _program(model: str, rest: str) -> tuple[str, ...]:
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise UserError(f"{OPTION} {model}: {error} in the command.") from None
    if not words:
        raise UserError(f"{OPTION} {model}: expected command:PROGRAM, with arguments if it needs any.")
    program = shutil.which(str(Path(words[0]).expanduser()))
    if program is None:
        there = Path(words[0]).expanduser().is_file()
        reason = "it is not executable: chmod +x" if there else "there is no such program"
        raise MissingFileError(f"{OPTION} {model}: {words[0]}: {reason}.")
    return (str(Path(program).absolute()), *words[1:])
