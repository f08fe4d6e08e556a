"""`ns-viewer` in a real browser: the command, and the part of its page that shows the avatar."""

from __future__ import annotations

import base64
import io
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from tools.measure.pages.browser import Browser, wait_until

WITHIN = 300
"""Seconds for every step: what a busy machine may take, not what is expected."""
_CALM_SECONDS = 1.0
"""A picture is the last one when no other has come for so long: Nerfstudio draws small first."""
_FULL_SIZE = 512
"""Longer side of a picture at Nerfstudio's own greatest resolution."""
_KEEP_PICTURES = """
    window.pictures = [];
    const makeUrl = URL.createObjectURL;
    URL.createObjectURL = thing => {
        if (thing.type == 'image/jpeg') window.pictures = [...window.pictures.slice(-5), thing];
        return makeUrl.call(URL, thing);
    };
"""
_LAST_PICTURE = """
    (async () => {
        for (const picture of [...window.pictures].reverse()) {
            const bytes = new Uint8Array(await picture.arrayBuffer());
            // Depths come the same way, as PNG.
            if (bytes[0] != 0xFF || bytes[1] != 0xD8) continue;
            return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ''));
        }
        return null;
    })()
"""


@contextmanager
def ns_viewer(run: Path, log: Path) -> Iterator[str]:
    """The address of a viewer that shows a run; what it prints is shown if something goes wrong."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = str(Path(sys.executable).parent / "ns-viewer")
    command = [program, "--load-config", str(run / "config.yml"), "--viewer.websocket-port", str(port)]
    with log.open("w") as file:
        viewer = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: _answers(viewer, port), WITHIN, "ns-viewer starts")
            yield f"http://127.0.0.1:{port}"
        except BaseException:
            print(log.read_text()[-5000:])
            raise
        finally:
            viewer.terminate()
            viewer.wait(60)


def _answers(viewer: subprocess.Popen[bytes], port: int) -> bool:
    assert viewer.poll() is None, "ns-viewer has ended"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Window:
    """The pictures that the page gets and paints.

    What it has painted is no measure: the page lowers its own resolution where there is no graphics card, step by step.

    Args:
        browser: that has not opened the page yet.
    """

    def __init__(self, browser: Browser):
        self._browser = browser
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=_KEEP_PICTURES)

    def becomes(self, expected: Callable[[np.ndarray], bool], what: str) -> np.ndarray:
        """The first picture of full size that is as expected and stays; (height, width, 3), 0 to 255."""
        end, last = time.monotonic() + WITHIN, None
        while True:
            now = self.picture()
            if now is not None and max(now.shape) >= _FULL_SIZE and expected(now):
                if last is not None and np.array_equal(now, last):
                    return now
                last = now
            else:
                last = None
            seen = (
                "no picture came"
                if now is None
                else f"the last picture had {now.shape[1]} x {now.shape[0]} pixels"
            )
            assert time.monotonic() < end, f"not within {WITHIN} s: {what}; {seen}"
            time.sleep(_CALM_SECONDS)

    def picture(self) -> np.ndarray | None:
        """The last one; (height, width, 3), 0 to 255."""
        data = self._browser.evaluate(_LAST_PICTURE)
        if data is None:
            return None
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            return np.asarray(picture.convert("RGB")).astype(int)
