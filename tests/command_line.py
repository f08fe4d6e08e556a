"""The command `edit3dgs` within a test's process."""

from __future__ import annotations

import pytest

from edit3dgs_ns.commands import main as cli


def edit3dgs(*arguments: object) -> int:
    """Its exit code."""
    return cli.run([str(argument) for argument in arguments])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What it has said on stderr, without the panel's borders and any white space."""
    return "".join(capsys.readouterr().err.replace("│", " ").split())
