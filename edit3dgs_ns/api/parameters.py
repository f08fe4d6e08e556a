"""Messages of the Python API name parameters, where those of the command line, which come from the same code, name options."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from edit3dgs_ns.errors import UserError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_OPTION = re.compile(r"--(?:pipeline\.(?:editor\.)?)?([a-z][a-z-]*)")
_NAMES = {
    "motion": "path",
    "output": "path",
    "motion_part": "part",
    "cameras": "count",
    "overwrite": "overwrite=True",
}
"""Parameters that are called otherwise than the option."""


def in_parameters(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, with the options in the messages of its `UserError`s worded as parameters."""

    @functools.wraps(function)
    def worded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            error.args = (parameters_named(str(error)),)
            raise

    return worded


def parameters_named(message: str) -> str:
    """A message with parameters for options; what stands between backticks is a command line and stays."""

    def parameter(match: re.Match[str]) -> str:
        name = match[1].replace("-", "_")
        return _NAMES.get(name, name)

    parts = message.split("`")
    parts[::2] = [_OPTION.sub(parameter, part) for part in parts[::2]]
    return "`".join(parts)
