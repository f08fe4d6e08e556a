"""How long `ns-viewer` takes to show another frame after its slider was moved.

    slider_response_s       from the message that the slider has moved to the first picture of the new frame
    slider_full_picture_s   to the one at full resolution: Nerfstudio waits for 0.2 s without a move, twice, before it draws that

Against a real `ns-viewer`, by a client that speaks the viewer's own protocol and paints nothing: what the machine's browser adds is
not in the figures. The window is 256 x 256 pixels.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from PIL import Image
from rich.console import Console
from websockets.sync.client import ClientConnection, connect

from tools.measure.pages.ns_viewer import ns_viewer

SIZE = 256
MOVES = 20
_ANSWERS_WITHIN = 60.0
_SETTLED = 1.5
"""Seconds without a picture after which the viewer has nothing more to show."""


def measure(console: Console, moves: int = MOVES, size: int = SIZE) -> dict[str, Any]:
    """The section `viewer` of bench.json."""
    with tempfile.TemporaryDirectory(prefix="edit3dgs-viewer-") as folder:
        console.log(f"Viewer: training a small avatar in {folder}")
        config = make_run(Path(folder), size)
        console.log(f"Viewer: {moves} moves of the frame slider")
        with ns_viewer(config.parent, Path(folder) / "viewer.log") as url:
            first, full = _moved(url, moves, size)
    return {"slider_response_s": round(first, 3), "slider_full_picture_s": round(full, 3), "moves": moves}


def make_run(folder: Path, size: int) -> Path:
    """A capture and an avatar of it that is hardly trained, but as large as any; returns its config.yml."""
    edit3dgs, data = _program("edit3dgs"), folder / "capture"
    shape = ["--resolution", str(size), str(size), "--cameras", "3", "--frames", "4", "--samples", "1"]
    _run([edit3dgs, "capture", str(data), *shape])
    _run(
        [
            _program("ns-train"), "rigged-splatfacto-fast", "--max-num-iterations", "2", "--output-dir", str(folder),
            "--experiment-name", "avatar", "--timestamp", "run", "nersemble-data", "--data", str(data),
        ]
    )  # fmt: skip
    return folder / "avatar" / "rigged-splatfacto-fast" / "run" / "config.yml"


class Visitor:
    """A client of viser's protocol: MessagePack over a web socket.

    Args:
        socket: connected to the viewer.
        size: of the window, pixels a side.
    """

    def __init__(self, socket: ClientConnection, size: int):
        self._socket = socket
        self.sliders: dict[str, str] = {}
        """Their ids by label."""
        self.first_picture = 0.0
        """When the first picture came; a reading of `time.perf_counter`."""
        self._send(
            "ViewerCameraMessage",
            wxyz=(0.0, 1.0, 0.0, 0.0),
            position=(0.0, 0.0, 10.0),
            fov=0.42,
            aspect=1.0,
            look_at=(0.0, 0.0, 0.0),
            up_direction=(0.0, 1.0, 0.0),
        )
        self.pictures(until_quiet=4 * _SETTLED)
        self.move("Max res", size)
        self.pictures(until_quiet=2 * _SETTLED)

    def move(self, label: str, value: float) -> None:
        """Move a slider."""
        self._send("GuiUpdateMessage", id=self.sliders[label], updates={"value": value})

    def pictures(self, until_quiet: float) -> list[tuple[float, int]]:
        """When pictures came and how high they were, until none has come for some seconds; at least one, after the first moves."""
        found: list[tuple[float, int]] = []
        quiet_since = time.perf_counter()
        while True:
            waited = time.perf_counter() - quiet_since
            if waited > (until_quiet if found or not self.sliders else _ANSWERS_WITHIN):
                assert found or not self.sliders, "no picture came"
                return found
            try:
                raw = self._socket.recv(timeout=0.1)
            except TimeoutError:
                continue
            for message in _messages(raw):
                if message.get("type") == "GuiAddSliderMessage":
                    self.sliders.setdefault(message["label"], message["id"])
                if message.get("type") == "BackgroundImageMessage":
                    quiet_since = time.perf_counter()
                    self.first_picture = self.first_picture or quiet_since
                    with Image.open(io.BytesIO(message["rgb_bytes"])) as picture:
                        found.append((quiet_since, picture.height))

    def _send(self, kind: str, **fields: Any) -> None:
        self._socket.send(msgspec.msgpack.encode({"type": kind, **fields}))


def _moved(url: str, moves: int, size: int) -> tuple[float, float]:
    """Median seconds to the first picture, and to the first at full size."""
    with connect(url.replace("http", "ws", 1), max_size=None, proxy=None) as socket_:
        visitor = Visitor(socket_, size)
        first, full = [], []
        for move in range(moves):
            start = time.perf_counter()
            visitor.move("Frame", 1 + move % 3)
            pictures = visitor.pictures(until_quiet=_SETTLED)
            first.append(pictures[0][0] - start)
            full.append(next(moment for moment, height in pictures if height >= size) - start)
    return median(first), median(full)


def _messages(raw: str | bytes) -> list[dict[str, Any]]:
    assert isinstance(raw, bytes)
    content = msgspec.msgpack.decode(raw)
    found = content.get("messages", content) if isinstance(content, dict) else content
    return found if isinstance(found, list) else [found]


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
