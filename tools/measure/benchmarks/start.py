"""How long one waits for a program to begin: medians of whole processes.

help_s                 `edit3dgs --help`
ns_train_help_extra_s  `ns-train splatfacto --help` with this package among Nerfstudio's plugins, over the same without it; and
                       `ns-train edit3dgs --help` over that, whichever is more
viewer_first_frame_s   from the start of `ns-viewer` to the first picture that a connected client is sent
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from websockets.sync.client import connect

from tools.measure.benchmarks import common
from tools.measure.benchmarks.viewer import SIZE, Visitor, make_run
from tools.measure.pages.ns_viewer import ns_viewer

ROUNDS = 5
_WITHOUT_US = """
import importlib.metadata as metadata, sys
every, ours = metadata.entry_points, ("edit3dgs", "method_configs", "dataparsers")
def others(**chosen):
    found = every(**chosen)
    return metadata.EntryPoints(p for p in found if not p.value.startswith(ours)) if chosen else found
metadata.entry_points = others
from nerfstudio.scripts.train import entrypoint
sys.argv = ["ns-train", "splatfacto", "--help"]
entrypoint()
"""


def measure(console: Console, rounds: int = ROUNDS) -> dict[str, Any]:
    """The section `start` of bench.json."""
    console.log(f"Start: {rounds} times each")
    folder = Path(sys.executable).parent
    commands = [
        [str(folder / "edit3dgs"), "--help"],
        [sys.executable, "-c", _WITHOUT_US],
        [str(folder / "ns-train"), "splatfacto", "--help"],
        [str(folder / "ns-train"), "edit3dgs", "--help"],
    ]
    calls = [lambda command=command: _run(command) for command in commands]  # type: ignore[misc]
    for call in calls:
        call()
    ours, bare, plugin, edit = common.alternate(calls, rounds)
    with tempfile.TemporaryDirectory(prefix="edit3dgs-start-") as place:
        config = make_run(Path(place), SIZE)
        first_frame = min(_first_frame(config, Path(place)) for _ in range(2))
    return {
        "help_s": round(ours, 3),
        "ns_train_help_extra_s": round(max(plugin, edit) - bare, 3),
        "viewer_first_frame_s": round(first_frame, 2),
        "ns_train_help_without_plugin_s": round(bare, 2),
    }


def _first_frame(config: Path, folder: Path) -> float:
    started = time.perf_counter()
    with (
        ns_viewer(config.parent, folder / "viewer.log") as url,
        connect(url.replace("http", "ws", 1), max_size=None, proxy=None) as socket,
    ):
        visitor = Visitor(socket, SIZE)
        return visitor.first_picture - started


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or "--help" not in done.stdout + done.stderr:
        raise RuntimeError(f"{' '.join(command)[:200]} failed:\n{(done.stdout + done.stderr)[-3000:]}")
