"""`ns-viewer` as a user has it: the real command, and a real headless Chromium that moves sliders and presses buttons.

Compared are the pictures that the page gets; that it paints them is seen from the outside. What must be exact is read from the
run's own files.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.edit_runs import PROMPT, train
from tools.measure.pages.browser import Browser, button, field, find_chromium, tab, wait_until
from tools.measure.pages.ns_viewer import WITHIN, Window, ns_viewer

SIZE = (760, 500)
"""Of the browser's window: small, because it is painted without a graphics card."""
OTHER = 10.0
"""Largest change of the mean of a block, of 255, that two different pictures have at least (measured: 28)."""
BLOCK = 40
"""Side of the blocks that are compared, in pixels."""
GREEN = "Turn his skin green"


def painted(browser: Browser) -> np.ndarray:
    """What a visitor sees, without the panel and the title."""
    return browser.screenshot()[60:, : SIZE[0] - 330].astype(int)


def shows_head(picture: np.ndarray) -> bool:
    """On white."""
    return (picture > 230).all(-1).mean() > 0.2 and (picture < 180).any(-1).mean() > 0.05


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Largest change of the mean of a block, of 255."""
    return float(np.abs(_blocks(one) - _blocks(other)).max())


def _blocks(picture: np.ndarray) -> np.ndarray:
    height, width = (side // BLOCK * BLOCK for side in picture.shape[:2])
    cells = picture[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, -1)
    return cells.mean(axis=(1, 3))


@pytest.fixture
def run(make_config) -> Path:
    """A run that has edited a little with the demo's editor."""
    options = {"rounds": 1, "views_per_edit": 1, "edit_every": 20, "final_steps": 20}
    return train(make_config(model="demo", **options)).base_dir


@pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)
def test_slider_preview_edit_and_undo_in_a_real_browser(run, tmp_path):
    former = checkpoint(run).read_bytes()
    with (
        ns_viewer(run, tmp_path / "viewer.log") as url,
        Browser(tmp_path / "profile", SIZE) as browser,
    ):
        window = Window(browser)
        browser.open(url)
        at_start = window.becomes(shows_head, "a head on white")
        browser.wait_for_frame()
        assert shows_head(painted(browser))
        to_the_end_and_back(browser, window, at_start)

        browser.click(tab("Edit"))
        browser.click(field("Sentence"))
        browser.type(GREEN)
        browser.click(button("Preview on this view"))
        browser.wait_for(says("The preview is done"), WITHIN)
        render, edited = np.split(panel_picture(browser, "Preview"), 2, axis=1)
        assert shows_head(render) and np.abs(render - edited).mean() > 5
        to_the_end_and_back(browser, window, at_start)  # it is drawn anew, and as it was
        assert checkpoint(run).read_bytes() == former

        browser.click(tab("Edit"))
        browser.click(button("Edit"))
        browser.wait_for(says("The edit is done"), WITHIN)
        window.becomes(lambda now: difference(now, at_start) > OTHER, "the edited avatar")
        before, after = np.split(panel_picture(browser, "The latest round"), 2, axis=0)
        assert np.abs(before - after).mean() > 5
        assert history(run) == (2, [None, PROMPT, GREEN]) and checkpoint(run).read_bytes() != former

        browser.click(button("Undo last edit"))
        browser.wait_for(says("The avatar is version 1 again"), WITHIN)
        window.becomes(lambda now: np.array_equal(now, at_start), "the avatar of before")
        assert history(run) == (1, [None, PROMPT, GREEN]) and checkpoint(run).read_bytes() == former
        # Nerfstudio's page asks for a logo and for statistics on the internet, which this browser does not reach.
        assert [error for error in browser.errors if "'source': 'network'" not in error] == []


def to_the_end_and_back(browser: Browser, window: Window, at_start: np.ndarray) -> None:
    """Move the frame slider, and see the pictures follow."""
    browser.click(tab("Move"))
    browser.click(field("Frame"))
    before = painted(browser)
    browser.press("End")
    window.becomes(lambda now: difference(now, at_start) > OTHER, "another frame")
    wait_until(lambda: difference(painted(browser), before) > OTHER, WITHIN, "it is painted, too")
    browser.press("Home")
    window.becomes(lambda now: np.array_equal(now, at_start), "the first frame again")


def checkpoint(run: Path) -> Path:
    """The one that any command would load."""
    (path,) = (run / "nerfstudio_models").iterdir()
    return path


def history(run: Path) -> tuple[int, list[str | None]]:
    """The version that is shown, and the sentences of all."""
    record = json.loads((run / "history" / "history.json").read_text())
    return record["current"], [version["prompt"] for version in record["versions"]]


def says(text: str) -> str:
    """JavaScript: it stands on the page."""
    return f"document.body.innerText.includes({json.dumps(text)})"


def panel_picture(browser: Browser, said: str) -> np.ndarray:
    """A picture of the panel by the beginning of its text; (height, width, 3)."""
    image = f"[...document.querySelectorAll('img')].find(i => i.alt.startsWith({json.dumps(said)}))"
    source = browser.wait_for(f"{image}?.src", WITHIN)
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)
