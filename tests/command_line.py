"""The command `edit3dgs` within a test's process."""

from __future__ import annotations

import pytest

from edit3dgs_ns.commands import main as cli


def edit3dgs(*arguments: object) -> int:
    """Its exit code."""
    return cli.run([str(argument) for argument in arguments])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What it has said on stderr, exactly: errors are printed unwrapped."""
    return capsys.readouterr().err
