"""Pages in this machine's own Chromium, headless and without a network, through Playwright."""

from __future__ import annotations

import io
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WITHIN = 300
"""Seconds for every step: what a busy machine may take, not what is expected."""
_FLAGS = (
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
_INPUTS = "[role=slider], input:not([type=hidden]), textarea"
_INPUT_XPATH = "@role='slider' or self::textarea or self::input[not(@type='hidden')]"
_NEXT_FRAME = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def find_chromium() -> str | None:
    """Returns the path of the Chromium on the PATH; None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """Starts a headless Chromium that renders WebGL on the CPU and resolves no host but this machine.

    Args:
        flags: more of its command line.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=[*_FLAGS, *flags])
        try:
            yield browser
        finally:
            browser.close()


class PageLog:
    """Errors and requests of a page, up to date after any call of Playwright.

    Args:
        page: one that has opened nothing yet.
    """

    def __init__(self, page: Page):
        self.uncaught: list[str] = []
        """Exceptions that the page did not catch."""
        self.complaints: list[str] = []
        """Errors on its console: what the page reports, and what the browser does (a request that failed)."""
        self.requests: list[str] = []
        """URLs, cut after 200 characters."""
        page.on("pageerror", lambda error: self.uncaught.append(str(error)[:500]))
        page.on("console", self._note)
        page.on("request", lambda request: self.requests.append(request.url[:200]))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text[:500])


def new_page(browser: Browser, size: tuple[int, int], *, offline: bool = False) -> Page:
    """Returns an empty page in a context of its own.

    Args:
        browser: from `chromium`.
        size: width and height of the viewport, pixels.
        offline: whether it has no network at all, not even this machine.
    """
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, offline=offline)
    context.set_default_timeout(WITHIN * 1000)
    return context.new_page()


def wait_for_frame(page: Page) -> None:
    """Waits until the page has drawn its current state."""
    page.evaluate(_NEXT_FRAME)


def screenshot(page: Page) -> np.ndarray:
    """Returns the viewport as it is drawn; (height, width, 3) uint8."""
    return decode_image(page.screenshot())


def decode_image(data: bytes) -> np.ndarray:
    """Returns the image in a PNG or JPEG file's bytes; (height, width, 3) uint8."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def drag(page: Page, start: tuple[int, int], end: tuple[int, int]) -> None:
    """Moves the mouse from one point of the viewport to another with its left button down."""
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=2)
    page.mouse.up()


def field(page: Page, label: str) -> Locator:
    """Returns the input (text, number or the thumb of a slider) that stands beside a visible label of viser's panel."""
    name = page.locator("label:visible", has_text=re.compile(rf"^{re.escape(label)}$"))
    return name.locator(f"xpath=ancestor::*[.//*[{_INPUT_XPATH}]][1]").locator(_INPUTS).first


def choose(page: Page, label: str, option: str) -> None:
    """Chooses an option of a drop-down list of viser's panel."""
    field(page, label).click()
    page.get_by_role("option", name=option, exact=True).click()


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Returns the first true value of a condition.

    Raises:
        AssertionError: it did not come true in time.
    """
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)
