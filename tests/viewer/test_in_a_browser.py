"""`ns-viewer` as a user has it: the real command, and a real headless Chromium that moves sliders and presses buttons.

Compared are the images that the page gets; that it paints them is seen from the outside. What must be exact is read from the
run's own files.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.edit_runs import PROMPT, train
from tools.measure.pages.browser import (
    WITHIN,
    PageLog,
    chromium,
    decode_image,
    field,
    find_chromium,
    new_page,
    screenshot,
    wait_for_frame,
    wait_until,
)
from tools.measure.pages.ns_viewer import Window, ns_viewer

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZE = (760, 500)
"""Of the browser's window: small, because it is painted without a graphics card."""
OTHER = 10.0
"""Largest change of the mean of a block, of 255, that two different images have at least (measured: 28)."""
BLOCK = 40
"""Side of the blocks that are compared, in pixels."""
GREEN = "Turn his skin green"


def painted(page: Page) -> np.ndarray:
    """Returns the screenshot without the panel and the title."""
    return screenshot(page)[60:, : SIZE[0] - 330].astype(int)


def shows_head(image: np.ndarray) -> bool:
    """On white."""
    return (image > 230).all(-1).mean() > 0.2 and (image < 180).any(-1).mean() > 0.05


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Largest change of the mean of a block, of 255."""
    return float(np.abs(_blocks(one) - _blocks(other)).max())


def _blocks(image: np.ndarray) -> np.ndarray:
    height, width = (side // BLOCK * BLOCK for side in image.shape[:2])
    cells = image[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, -1)
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
    with ns_viewer(run, tmp_path / "viewer.log") as url, chromium() as browser:
        page = new_page(browser, SIZE)
        log, window = PageLog(page), Window(page)
        page.goto(url)
        at_start = window.becomes(shows_head, "a head on white")
        wait_for_frame(page)
        assert shows_head(painted(page))
        to_the_end_and_back(page, window, at_start)

        open_tab(page, "Edit")
        field(page, "Prompt").fill(GREEN)
        press(page, "Preview on this view")
        wait_for_text(page, "The preview is done")
        render, edited = np.split(panel_image(page, "Preview"), 2, axis=1)
        assert shows_head(render) and np.abs(render - edited).mean() > 5
        to_the_end_and_back(page, window, at_start)  # it is drawn anew, and as it was
        assert checkpoint(run).read_bytes() == former

        open_tab(page, "Edit")
        press(page, "Edit")
        wait_for_text(page, "The edit is done")
        window.becomes(lambda now: difference(now, at_start) > OTHER, "the edited avatar")
        before, after = np.split(panel_image(page, "The latest round"), 2, axis=0)
        assert np.abs(before - after).mean() > 5
        assert history(run) == (2, [None, PROMPT, GREEN]) and checkpoint(run).read_bytes() != former

        press(page, "Undo last edit")
        wait_for_text(page, "The avatar is version 1 again")
        window.becomes(lambda now: np.array_equal(now, at_start), "the avatar of before")
        assert history(run) == (1, [None, PROMPT, GREEN]) and checkpoint(run).read_bytes() == former
        assert log.uncaught == []


def to_the_end_and_back(page: Page, window: Window, at_start: np.ndarray) -> None:
    """Moves the frame slider, and sees the images follow."""
    open_tab(page, "Move")
    field(page, "Frame").click()
    wait_for_frame(page)  # a slider obeys a click with the next frame, and keys at once
    before = painted(page)
    page.keyboard.press("End")
    window.becomes(lambda now: difference(now, at_start) > OTHER, "another frame")
    wait_until(lambda: difference(painted(page), before) > OTHER, WITHIN, "it is painted, too")
    page.keyboard.press("Home")
    window.becomes(lambda now: np.array_equal(now, at_start), "the first frame again")


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def wait_for_text(page: Page, text: str) -> None:
    page.get_by_text(text).wait_for()


def checkpoint(run: Path) -> Path:
    """The one that any command would load."""
    (path,) = (run / "nerfstudio_models").iterdir()
    return path


def history(run: Path) -> tuple[int, list[str | None]]:
    """The version that is shown, and the prompts of all."""
    record = json.loads((run / "history" / "history.json").read_text())
    return record["current"], [version["prompt"] for version in record["versions"]]


def panel_image(page: Page, alt: str) -> np.ndarray:
    """Returns the image of the panel whose alternative text begins so; (height, width, 3)."""
    source = page.locator(f'img[alt^="{alt}"]').get_attribute("src")
    assert source is not None
    return decode_image(base64.b64decode(source.partition(",")[2])).astype(int)
