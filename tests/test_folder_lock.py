"""Two processes in one folder: the second is told of the first; a killed one leaves nothing in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edit3dgs_ns import folder_lock
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.folder_lock import hold_until_exit, only_process

HOLD = """
import sys, time
from pathlib import Path
from edit3dgs_ns.folder_lock import only_process
with only_process(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_second_process_is_told_of_the_first_until_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        told = rf"{folder} is being written by process {other.pid} \(-c"
        with pytest.raises(UserError, match=told), only_process(folder):
            pass
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    with only_process(folder):
        pass


def test_it_is_let_go_at_the_end_and_held_twice_by_one_process(tmp_path: Path) -> None:
    for _ in range(2):
        with only_process(tmp_path / "run"):
            pass
    assert not any(tmp_path.iterdir()), "a new folder stays new"
    hold_until_exit(tmp_path)
    hold_until_exit(tmp_path)
    os.close(folder_lock._HELD.pop(tmp_path.resolve()))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: "), only_process(tmp_path / "file" / "run"):
        pass


def test_file_systems_without_locks_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(folder_lock, "_try_lock", no_locks)
    with only_process(tmp_path), only_process(tmp_path):
        pass
