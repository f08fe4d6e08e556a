"""The `edit3dgs` command: user errors become one message, bugs keep their traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edit3dgs_ns.commands import main as cli
from edit3dgs_ns.errors import ExistingFileError, MissingFileError, UserError
from tests.command_line import edit3dgs


def run_with(monkeypatch: pytest.MonkeyPatch, body: Callable[[], int]) -> int:
    """Run `edit3dgs doctor` with `body` in the doctor's place."""
    from edit3dgs_ns.commands.doctor import DoctorCommand

    monkeypatch.setattr(DoctorCommand, "execute", lambda self: body())
    return cli.run(["doctor"])


def raising(error: BaseException) -> Callable[[], int]:
    """A function that raises `error`."""

    def body() -> int:
        raise error

    return body


@pytest.mark.parametrize("kind", [UserError, MissingFileError, ExistingFileError])
def test_user_error_is_one_message_and_code_2(
    kind: type[UserError], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run_with(monkeypatch, raising(kind("--data: no folder [there]")))
    shown = capfd.readouterr()
    assert code == cli.USER_ERROR_EXIT_CODE
    assert "--data: no folder [there]" in shown.err
    assert "Traceback" not in shown.err + shown.out


def test_error_of_another_library_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> int:
        return os.stat("/no/such/file").st_size

    with pytest.raises(FileNotFoundError):
        run_with(monkeypatch, body)


def test_value_error_that_is_no_users_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        run_with(monkeypatch, lambda: int("x"))


def test_interrupt_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run_with(monkeypatch, raising(KeyboardInterrupt()))
    assert code == cli.INTERRUPTED_EXIT_CODE
    assert "goes on" in capfd.readouterr().err


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.run([command, "--help"])
    assert stop.value.code == 0
    assert f"edit3dgs {command}" in capsys.readouterr().out


def test_exit_code_of_the_command_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_with(monkeypatch, lambda: 1) == 1
    assert run_with(monkeypatch, lambda: 0) == 0


def test_capture_writes_what_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import edit3dgs_ns.synthetic.writer

    asked: dict[str, object] = {}

    def fake(out: Path, **options: object) -> Path:
        asked.update(options, out=out)
        return out / "UNION"

    monkeypatch.setattr(edit3dgs_ns.synthetic.writer, "write_capture", fake)
    words = ["capture", str(tmp_path), "--seed", "3", "--resolution", "64", "48", "--cameras", "4"]
    assert cli.run([*words, "--frames", "5"]) == 0
    assert asked["out"] == tmp_path
    assert (asked["seed"], asked["cameras"], asked["frames"]) == (3, 4, 5)
    assert (asked["width"], asked["height"]) == (64, 48)


@pytest.mark.parametrize("name", ["n" * 300, "file/below"], ids=["a name too long", "below a file"])
def test_a_place_that_cannot_be_written_is_named(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert edit3dgs("capture", tmp_path / name, "--resolution", 16, 16, "--cameras", 1, "--frames", 1) == 2
    message = capfd.readouterr().err
    assert str(tmp_path / "file") in message or "n" * 300 in message
    assert "Traceback" not in message


def test_help_names_arguments_and_breaks_lines_at_the_edge_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        cli.run(["track", "--help"])
    shown = capsys.readouterr().out
    assert "track [-h] [OPTIONS] VIDEO OUT" in shown
    with pytest.raises(SystemExit):
        cli.run(["orbit", "--help"])
    shown = capsys.readouterr().out
    assert "as far as the capture's cameras stand; behind them the avatar has learnt nothing." in shown
    assert "--background-transform" in shown
