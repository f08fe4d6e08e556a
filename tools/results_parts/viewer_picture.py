"""A picture of `ns-viewer` with an edited run, for the README: half before, half after the edit.

    python -m tools.results_parts.viewer_picture RUN FILE.png

Needs a Chromium.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from tools.pages.browser import Browser, choose, find_chromium, tab
from tools.pages.ns_viewer import Window, ns_viewer

SIZE = (1280, 800)


def main(arguments: list[str]) -> int:
    """Draw it."""
    run, picture = (Path(word) for word in arguments)
    if find_chromium() is None:
        print(
            "A picture of the viewer needs a Chromium. Debian: apt install chromium fonts-dejavu-core",
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
        window.becomes(lambda now: bool((now < 180).any()), "a head")
        browser.click(tab("Look"))
        choose(browser, "Compare", "Split")
        window.becomes(lambda now: bool((now < 180).any()), "a head before and after")
        Image.fromarray(browser.screenshot()).save(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
