"""A real headless Chromium, driven through its own remote debugging protocol: no library but `websockets`, which viser brings."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
)
_DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
_KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "End": 35, "Home": 36, "Enter": 13}


def find_chromium() -> str | None:
    """The program, if this machine has one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page. Use as a context manager.

    `errors` collects what goes wrong in the page (exceptions that nobody catches, what the browser itself complains about),
    `requests` the addresses that it asks for; both are up to date after any call.

    Args:
        profile: an empty folder.
        size: of the window, pixels.
    """

    def __init__(self, profile: Path, size: tuple[int, int] = (800, 600)):
        self._profile, self._size = profile, size

    def __enter__(self) -> Browser:
        with contextlib.ExitStack() as started:  # what goes wrong on the way leaves no Chromium behind
            program = find_chromium()
            assert program is not None
            process = subprocess.Popen(
                [program, *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            started.callback(process.wait, 30)
            started.callback(process.terminate)
            port_file = self._profile / "DevToolsActivePort"
            wait_until(
                lambda: port_file.is_file() and port_file.read_text().count("\n") >= 1, 60, "Chromium starts"
            )
            port = int(port_file.read_text().splitlines()[0])
            self._socket = started.enter_context(connect(self._page(port), max_size=None, proxy=None))
            self._prepare()
            self._close = started.pop_all().close
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _prepare(self) -> None:
        self._numbers = itertools.count(1)
        self.errors: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        width, height = self._size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState == 'complete' && document.querySelector('canvas') != null")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> Any:
        """The value of a JavaScript expression, once it is true."""
        return wait_until(lambda: self.evaluate(expression), seconds, expression)

    def click(self, expression: str) -> None:
        """Click the middle of an element, given as a JavaScript expression, as a mouse does; returns once that is drawn."""
        place = self.wait_for(
            f"(() => {{ const e = {expression}; if (!e) return null; e.scrollIntoView({{block: 'center'}});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )
        self.wait_for_frame()  # a slider obeys a click with the next frame, and keys at once

    def wait_for_frame(self) -> None:
        """Wait until the page has drawn all that it knows now."""
        self.evaluate(_DRAWN)

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Move the mouse from one place of the window to another with its left button down."""
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        steps = (("mousePressed", start), ("mouseMoved", middle), ("mouseMoved", end), ("mouseReleased", end))
        for kind, (x, y) in steps:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_KEYS[key]
            )

    def type(self, text: str) -> None:
        """Type into what has the focus, in place of what is there."""
        self.evaluate("document.activeElement.select()")
        self.call("Input.insertText", text=text)

    def screenshot(self) -> np.ndarray:
        """(height, width, 3) uint8."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its answer."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            self._note(message.get("method"), message.get("params", {}))
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]

    def _note(self, event: str | None, parameters: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"])[:500])
        elif event == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(str(parameters["entry"])[:500])
        elif event == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"][:200])

    def _page(self, port: int) -> str:
        import urllib.request

        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            pages = [target for target in json.load(answer) if target["type"] == "page"]
        return pages[0]["webSocketDebuggerUrl"]


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of a condition.

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


def button(label: str) -> str:
    """JavaScript: the visible button with this text, if it can be pressed."""
    return _named("button:not([role=tab]):not([disabled])", label)


def tab(label: str) -> str:
    """JavaScript: the tab with this text."""
    return _named("[role=tab]", label)


def field(label: str) -> str:
    """JavaScript: the input (text, number or the thumb of a slider) that stands beside this label."""
    return (
        "(() => { const l = [...document.querySelectorAll('label')].find(l => l.offsetParent && l.textContent.trim()"
        f" == {json.dumps(label)}); if (!l) return null; let box = l.parentElement;"
        " while (box && !box.querySelector('input:not([type=hidden]), textarea, [role=slider]')) box = box.parentElement;"
        " return box && (box.querySelector('[role=slider]') || box.querySelector('input:not([type=hidden]), textarea')); })()"
    )


def _named(selector: str, label: str) -> str:
    return (
        f"[...document.querySelectorAll({json.dumps(selector)})].find(e => e.offsetParent && e.textContent.trim()"
        f" == {json.dumps(label)})"
    )


def choose(browser: Browser, label: str, option: str) -> None:
    """Choose from the drop-down list that stands beside this label."""
    browser.click(field(label))
    browser.click(_named("[role=option]", option))
