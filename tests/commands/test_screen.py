"""What a command prints in a process of its own: results on stdout, progress on stderr, nothing of libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_real_command_shows_progress_and_no_warnings_of_libraries(config: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "edit3dgs_ns",
        "interpolate",
        "--load-config",
        str(config),
        "--steps",
        "2",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    video = config.parent / "renders" / "interpolate-val.mp4"
    assert done.returncode == 0, done.stderr
    assert video.is_file() and f"Wrote {video}" in done.stdout
    assert "Warning" not in done.stderr and "site-packages" not in done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == f"Opening {config.parent} ..."
    assert all(line.startswith(("Opening ", "Rendering ")) for line in lines)
    assert lines[-1].startswith("Rendering 10 frames of 48 x 48 (0.4 s at 25 fps), 10 of 10, done in ")

    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.returncode == 2 and f"{video} is there already" in again.stderr
