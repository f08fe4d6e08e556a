"""What a user reads when a command refuses: the whole message, wherever it is printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(arguments: list[str], columns: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": str(columns)}
    command = [sys.executable, "-m", "edit3dgs_ns", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("columns", [20, 80])
def test_a_path_of_200_characters_is_printed_in_one_piece(columns: int, tmp_path: Path) -> None:
    folder = tmp_path / ("long [name] " * 17) / "of a capture"
    done = run(["doctor", "--data", str(folder)], columns)
    assert len(str(folder)) > 200 and done.returncode == 2
    assert done.stderr.startswith("error: ") and str(folder) in done.stderr
    assert done.stderr.count("\n") == 1
