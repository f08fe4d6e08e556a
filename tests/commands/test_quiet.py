"""Warnings of libraries do not reach the screen; ours do, and those that somebody has asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SPEAK = """
import logging, subprocess, sys, warnings
from edit3dgs_ns.commands.quiet import hide_library_warnings

hide_library_warnings()
warnings.simplefilter("always")  # as some libraries do when they are imported
for category in (UserWarning, FutureWarning, DeprecationWarning):
    warnings.warn(f"library {category.__name__}", category)
logging.getLogger("xformers").warning("library logger")
logging.getLogger("edit3dgs_ns.editing.store").warning("ours with a [path]")
subprocess.run([sys.executable, "-c", "import warnings; warnings.warn('library in a child', FutureWarning)"])
"""


def stderr_of(*flags: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    command = [sys.executable, *flags, "-c", SPEAK]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stderr


def test_only_our_warnings_are_shown() -> None:
    assert stderr_of() == "warning: ours with a [path]\n"


@pytest.mark.parametrize("category", ["FutureWarning", "UserWarning"])
def test_who_asks_for_warnings_gets_them(category: str) -> None:
    assert f"library {category}" in stderr_of("-W", "default")


RAISE = """
import sys, warnings
from edit3dgs_ns.commands.quiet import quiet_nerfstudio
from edit3dgs_ns.errors import UserError

sys.argv[0] = "/usr/bin/{program}"
quiet_nerfstudio()
warnings.warn("library", FutureWarning)
raise {error}("--data: no folder [there]")
"""


@pytest.mark.parametrize(
    ("program", "error", "shown"),
    [
        ("ns-train", "UserError", "error: --data: no folder [there]\n"),
        ("ns-train", "OSError", "Traceback"),
        ("pytest", "UserError", "Traceback"),
    ],
)
def test_nerfstudios_programs_show_a_users_mistake_as_one_message(
    program: str, error: str, shown: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    code = RAISE.format(program=program, error=error)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr == shown if shown.startswith("error") else shown in done.stderr
    assert ("FutureWarning" in done.stderr) == (program == "pytest")
