"""Images of `ns-viewer` with an edited run, for the documentation: half before, half after the edit; and a preview of another one.

    python -m tools.measure.results.viewer_pictures RUN FOLDER        # FOLDER/viewer.png, FOLDER/viewer_edit.png

Needs a Chromium.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tools.measure.pages.browser import Browser, button, choose, field, find_chromium, tab
from tools.measure.pages.ns_viewer import WITHIN, Window, ns_viewer

SIZE = (1280, 800)
SENTENCE = "Turn his skin green"


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
        Browser(Path(folder) / "profile", SIZE) as browser,
    ):
        window = Window(browser)
        browser.open(url)
        window.becomes(_shows_something, "a head")
        browser.click(tab("Look"))
        choose(browser, "Compare", "Split")
        window.becomes(_shows_something, "a head before and after")
        _save(browser, out / "viewer.png")
        choose(browser, "Compare", "After")
        browser.click(tab("Edit"))
        browser.click(field("Sentence"))
        browser.type(SENTENCE)
        browser.click(button("Preview on this view"))
        browser.wait_for("document.body.innerText.includes('The preview is done')", WITHIN)
        window.becomes(_shows_something, "the avatar")
        _save(browser, out / "viewer_edit.png")
    return 0


def _shows_something(picture: np.ndarray) -> bool:
    return bool((picture < 180).any())


def _save(browser: Browser, path: Path) -> None:
    browser.wait_for_frame()
    Image.fromarray(browser.screenshot()).save(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
