"""A text between typographic quotes is refused with the command as it has to be typed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.quotes import check_quotes
from tests.command_line import edit3dgs, said


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--prompt “Make him look older” --seed 5", "--prompt 'Make him look older' --seed 5"),
        ("--seed 5 --prompt „Mach ihn älter“", "--seed 5 --prompt 'Mach ihn älter'"),
        ("--prompt «Make him look older» out", "--prompt 'Make him look older' out"),
        ("--prompt ‘Give him Vincent’s beard’ out", "--prompt 'Give him Vincent’s beard' out"),
        ("--prompt=“Make him look older”", "--prompt 'Make him look older'"),
        ("--prompt “older”", "--prompt older"),
        ("--prompt '“Make him look older”'", "--prompt 'Make him look older'"),
        ("--prompt “Make him look older --seed 5", "--prompt 'Make him look older' --seed 5"),
        ("--source-caption a --target-caption “a b”", "--source-caption a --target-caption 'a b'"),
    ],
)
def test_the_message_shows_what_to_type(typed: str, meant: str) -> None:
    with pytest.raises(UserError, match="typographic") as refused:
        check_quotes("edit3dgs demo", shlex.split(typed))
    assert str(refused.value).endswith(f": edit3dgs demo {meant}")


@pytest.mark.parametrize(
    "typed",
    [
        "--prompt 'Make him look older'",
        "--prompt 'Give him a ’80s beard'",
        "--prompt ’80s",
        "--data “x”",
        "--prompt",
    ],
)
def test_other_words_are_left_alone(typed: str) -> None:
    check_quotes("edit3dgs demo", shlex.split(typed))


def test_the_command_refuses_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("demo", tmp_path / "demo", "--prompt", "“Make", "him", "look", "older”")
    assert edit3dgs(*words) == 2
    assert f"edit3dgs demo {tmp_path / 'demo'} --prompt 'Make him look older'" in said(capsys)


def test_ns_train_refuses_them() -> None:
    """Its options are parsed by Nerfstudio, which would say that it does not know `him`."""
    program = Path(sys.executable).with_name("ns-train")
    words = ["edit3dgs", "--prompt", "“Make", "him", "look", "older”", "nersemble-data", "--data", "X"]
    done = subprocess.run([program, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "ns-train edit3dgs --prompt 'Make him look older' nersemble-data --data X" in done.stderr
    assert "Traceback" not in done.stderr
