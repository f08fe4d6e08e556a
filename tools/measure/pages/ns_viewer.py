"""`ns-viewer` in a real browser: the process, and the images that its page receives."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tools.measure.pages.browser import WITHIN, decode_image, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

_CALM_SECONDS = 1.0
"""An image is the last one when no other has come for this time: Nerfstudio renders small first."""
_FULL_SIZE = 512
"""Longer side of an image at Nerfstudio's own greatest resolution."""
_KEEP_IMAGES = """
    window.receivedImages = [];
    const makeUrl = URL.createObjectURL;
    URL.createObjectURL = thing => {
        if (thing.type == 'image/jpeg') window.receivedImages = [...window.receivedImages.slice(-5), thing];
        return makeUrl.call(URL, thing);
    };
"""
_LAST_IMAGE = """
    (async () => {
        for (const image of [...window.receivedImages].reverse()) {
            const bytes = new Uint8Array(await image.arrayBuffer());
            // Depths come the same way, as PNG.
            if (bytes[0] != 0xFF || bytes[1] != 0xD8) continue;
            return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ''));
        }
        return null;
    })()
"""


@contextmanager
def ns_viewer(run: Path, log: Path) -> Iterator[str]:
    """Runs `ns-viewer` on a run and yields its URL; its output is printed if something goes wrong."""
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
    """The images that the viewer's page receives.

    What it has painted is no measure: the page lowers its own resolution where there is no graphics card, step by step.

    Args:
        page: one that has opened nothing yet.
    """

    def __init__(self, page: Page):
        self._page = page
        page.add_init_script(_KEEP_IMAGES)

    def becomes(self, expected: Callable[[np.ndarray], bool], what: str) -> np.ndarray:
        """Returns the first full-size image that is as expected and stays; (height, width, 3), 0 to 255."""
        end, last = time.monotonic() + WITHIN, None
        while True:
            now = self.image()
            if now is not None and max(now.shape) >= _FULL_SIZE and expected(now):
                if last is not None and np.array_equal(now, last):
                    return now
                last = now
            else:
                last = None
            seen = (
                "none came" if now is None else f"the last image had {now.shape[1]} x {now.shape[0]} pixels"
            )
            assert time.monotonic() < end, f"not within {WITHIN} s: {what}; {seen}"
            time.sleep(_CALM_SECONDS)

    def image(self) -> np.ndarray | None:
        """Returns the last one received; (height, width, 3), 0 to 255. None before the first."""
        data = self._page.evaluate(_LAST_IMAGE)
        return None if data is None else decode_image(base64.b64decode(data)).astype(int)
