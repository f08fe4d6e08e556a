"""`ns-viewer` as a user has it: the real command, and a real headless Chromium that moves sliders and presses buttons."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.browser import Browser, button, field, find_chromium, tab, wait_until
from tests.edit_runs import PROMPT, train

WIDTH, HEIGHT, PANEL, TITLE = 1000, 700, 330, 60
STARTS_WITHIN, DRAWN_WITHIN, EDITED_WITHIN = 180, 90, 180
"""Seconds: what a busy machine may take, not what is expected."""
CALM_FOR = 4.0
"""Seconds without a change after which a picture counts as drawn: it is drawn small first, and then at full size."""


@contextmanager
def ns_viewer(run: Path, log: Path) -> Iterator[str]:
    """The address of a viewer that shows a run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = str(Path(sys.executable).parent / "ns-viewer")
    with log.open("w") as file:
        viewer = subprocess.Popen(
            [program, "--load-config", str(run / "config.yml"), "--viewer.websocket-port", str(port)],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(lambda: _answers(viewer, port, log), STARTS_WITHIN, "ns-viewer starts")
            yield f"http://127.0.0.1:{port}"
        finally:
            viewer.terminate()
            viewer.wait(30)


def _answers(viewer: subprocess.Popen, port: int, log: Path) -> bool:
    assert viewer.poll() is None, log.read_text()[-3000:]
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Window:
    """The part of the page that shows the avatar."""

    def __init__(self, browser: Browser):
        self._browser = browser

    def picture(self) -> np.ndarray:
        return self._browser.screenshot()[TITLE:, : WIDTH - PANEL].astype(int)

    def settled(self) -> np.ndarray:
        """The picture once it has stopped changing: at its full resolution."""
        last, since, end = self.picture(), time.monotonic(), time.monotonic() + DRAWN_WITHIN
        while time.monotonic() - since < CALM_FOR:
            assert time.monotonic() < end, "the picture never settles"
            time.sleep(0.1)
            now = self.picture()
            if not np.array_equal(now, last):
                last, since = now, time.monotonic()
        return last

    def wait_for_change(self, former: np.ndarray) -> None:
        wait_until(lambda: difference(self.picture(), former) > 0.05, DRAWN_WITHIN, "the picture changes")


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean over the window, of 255."""
    return float(np.abs(one - other).mean())


@pytest.fixture
def run(make_config, tmp_path) -> Path:
    """A run that has edited a little with the demo's editor, in a place of its own."""
    made = train(make_config(model="demo", rounds=1, views_per_edit=1)).base_dir
    config = yaml.load((made / "config.yml").read_text(), Loader=yaml.Loader)
    config.output_dir = tmp_path / "outputs"
    shutil.copytree(made, config.get_base_dir())
    config.save_config()
    return config.get_base_dir()


@pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)
def test_slider_preview_edit_and_undo_in_a_real_browser(run, tmp_path):
    (checkpoint,) = (run / "nerfstudio_models").iterdir()
    former = checkpoint.read_bytes()
    with (
        ns_viewer(run, tmp_path / "viewer.log") as url,
        Browser(tmp_path / "profile", (WIDTH, HEIGHT)) as browser,
    ):
        window = Window(browser)
        browser.open(url)
        wait_until(lambda: (window.picture() > 200).all(-1).mean() > 0.2, DRAWN_WITHIN, "the avatar on white")

        at_start = window.settled()
        assert (at_start < 180).any(-1).mean() > 0.05, "a head is in the picture"
        browser.click(field("Frame"))
        for _ in range(2):
            browser.press("ArrowRight")
        window.wait_for_change(at_start)
        shown = window.settled()
        assert difference(shown, at_start) > 0.05

        browser.click(tab("Edit"))
        browser.click(field("Sentence"))
        browser.type("Turn his skin green")
        browser.click(button("Preview on this view"))
        browser.wait_for(_picture("Preview"), EDITED_WITHIN)
        assert checkpoint.read_bytes() == former and difference(window.settled(), shown) < 0.01

        browser.click(button("Edit"))
        browser.wait_for(_says("The edit is done"), EDITED_WITHIN)
        assert browser.evaluate(_picture("The latest round"))
        edited = window.settled()
        assert difference(edited, shown) > 0.05
        history = json.loads((run / "history" / "history.json").read_text())
        assert history["current"] == 2
        assert [v["prompt"] for v in history["versions"]] == [None, PROMPT, "Turn his skin green"]

        browser.click(button("Undo last edit"))
        browser.wait_for(_says("The avatar is version 1 again"), EDITED_WITHIN)
        wait_until(lambda: difference(window.picture(), edited) > 0.05, DRAWN_WITHIN, "the avatar of before")
        assert difference(window.settled(), shown) < 0.01
        (restored,) = (run / "nerfstudio_models").iterdir()
        assert restored.read_bytes() == former
        assert browser.errors == []


def _picture(said: str) -> str:
    return f"[...document.querySelectorAll('img')].some(i => i.alt.startsWith({json.dumps(said)}))"


def _says(text: str) -> str:
    return f"document.body.innerText.includes({json.dumps(text)})"
