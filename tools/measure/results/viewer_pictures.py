"""Images of `ns-viewer` with an edited run, for the documentation: half before, half after the edit; and a preview of another one.

    python -m tools.measure.results.viewer_pictures RUN FOLDER        # FOLDER/viewer.png, FOLDER/viewer_edit.png

Needs a Chromium.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tools.measure.pages.browser import (
    WITHIN,
    choose,
    chromium,
    field,
    find_chromium,
    new_page,
    wait_for_frame,
)
from tools.measure.pages.ns_viewer import Window, ns_viewer

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZE = (1280, 800)
PROMPT = "Turn his skin green"


def main(arguments: list[str]) -> int:
    """Draw both."""
    run, out = (Path(word) for word in arguments)
    if find_chromium() is None:
        print(
            "Pictures of the viewer need a Chromium. Debian: apt install chromium fonts-dejavu-core",
            file=sys.stderr,
        )
        return 2
    with (
        tempfile.TemporaryDirectory() as folder,
        ns_viewer(run, Path(folder) / "viewer.log") as url,
        chromium() as browser,
    ):
        page = new_page(browser, SIZE)
        window = Window(page)
        page.goto(url)
        window.becomes(_shows_something, "a head")
        page.get_by_role("tab", name="Look", exact=True).click()
        choose(page, "Compare", "Split")
        window.becomes(_shows_something, "a head before and after")
        _save(page, out / "viewer.png")
        choose(page, "Compare", "After")
        page.get_by_role("tab", name="Edit", exact=True).click()
        field(page, "Prompt").fill(PROMPT)
        page.get_by_role("button", name="Preview on this view", exact=True).click()
        page.get_by_text("The preview is done").wait_for(timeout=WITHIN * 1000)
        window.becomes(_shows_something, "the avatar")
        _save(page, out / "viewer_edit.png")
    return 0


def _shows_something(picture: np.ndarray) -> bool:
    return bool((picture < 180).any())


def _save(page: Page, path: Path) -> None:
    wait_for_frame(page)
    page.screenshot(path=path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
