"""The page as its reader has it: opened from the disk by a real headless Chromium without a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edit3dgs_ns.web.packing import unpack
from edit3dgs_ns.web.page import render_page
from edit3dgs_ns.web.scene import unpacked
from tests.web_scenes import ball, looking_at, picture
from tools.measure.pages.browser import Browser, find_chromium, wait_until

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)
WIDTH, HEIGHT = 360, 300
WITHIN = 120
"""Seconds: what a busy machine may take, not what is expected."""
TITLE = "</h1><b>bold</b>"
CONTROLS = (
    "[document.querySelector('header'), document.getElementById('view'), document.getElementById('controls')]"
)
SCENE = unpacked(ball().centred().packed())
"""As it is stored, so that pictures differ by how they are drawn alone."""


class Page:
    """An open page, whose controls may be hidden: then the picture has the whole window."""

    def __init__(self, browser: Browser, file: Path):
        self.browser = browser
        nothing = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.call("Network.emulateNetworkConditions", offline=True, **nothing)
        browser.open(f"{file.as_uri()}#still")
        self.drawn(0)

    def drawn(self, frame: int) -> None:
        self.browser.wait_for(f"document.body.dataset.drawn === '{frame}'", WITHIN)

    def bare(self, hidden: bool = True) -> None:
        self.browser.evaluate(f"for (const e of {CONTROLS}) e.hidden = {str(hidden).lower()}")
        self.browser.evaluate(
            "new Promise(requestAnimationFrame).then(() => new Promise(requestAnimationFrame))"
        )
        self.browser.evaluate("player.redraw()")

    def picture(self) -> np.ndarray:
        return self.browser.screenshot() / 255


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "avatar.html").write_text(render_page(SCENE.packed(), TITLE, "“Turn it green”"))
    with Browser(folder / "profile", (WIDTH, HEIGHT)) as browser:
        yield Page(browser, folder / "avatar.html")
        assert browser.errors == []


def assert_same_picture(found: np.ndarray, expected: np.ndarray) -> None:
    """The same but for the last bits: the browser adds up in 8 bits."""
    covered, should = (image.min(axis=-1) < 0.9 for image in (found, expected))
    assert (covered & should).sum() > 0.97 * (covered | should).sum() > 0.1 * covered.size
    assert np.abs(found - expected).mean() < 1.5 / 255
    assert np.abs(_blocks(found) - _blocks(expected)).max() < 3 / 255


def _blocks(image: np.ndarray, side: int = 20) -> np.ndarray:
    height, width = image.shape[0] // side, image.shape[1] // side
    return image.reshape(height, side, width, side, 3).mean(axis=(1, 3))


def test_it_reads_what_was_packed(page: Page) -> None:
    stored, _ = unpack(SCENE.packed())
    for name in ("vertices", "faces", "binding", "quats", "colors", "offsets", "codes"):
        read = page.browser.evaluate(f"Array.from(player.gaussians.avatar.arrays.{name}.values)")
        np.testing.assert_array_equal(np.array(read), stored[name].values.ravel())


def test_it_draws_what_the_rasterizer_draws(page: Page) -> None:
    page.bare()
    for frame in (0, 3):
        page.browser.evaluate(f"player.show({frame})")
        assert_same_picture(page.picture(), picture(SCENE, frame, WIDTH, HEIGHT))
    # Between two frames the vertices move straight.
    page.browser.evaluate("player.show(1.5)")
    between = {name: getattr(SCENE, name)[1:3].mean(axis=0, keepdims=True) for name in ("vertices", "codes")}
    half = replace(SCENE, **between)
    assert_same_picture(page.picture(), picture(half, 0, WIDTH, HEIGHT))


def test_the_slider_moves_it(page: Page) -> None:
    page.bare(False)
    page.browser.evaluate("player.show(0)")
    at_start = page.picture()
    page.browser.click("document.getElementById('frame')")
    page.browser.press("End")
    page.drawn(3)
    assert np.abs(page.picture() - at_start).mean() > 0.02
    assert page.browser.evaluate("document.getElementById('number').textContent") == "4 / 4"
    page.bare()
    assert_same_picture(page.picture(), picture(SCENE, 3, WIDTH, HEIGHT))


def test_the_mouse_turns_it_and_a_button_turns_it_back(page: Page) -> None:
    page.bare()
    page.browser.evaluate("player.show(0)")
    front = page.picture()
    page.browser.drag((WIDTH // 2, HEIGHT // 2), (WIDTH // 2 + 30, HEIGHT // 2 + 10))
    page.browser.evaluate("player.redraw()")
    assert np.abs(page.picture() - front).mean() > 0.02
    assert 0.3 < abs(_angles(page)[0]) < SCENE.camera.reach[0] - 0.1
    page.browser.drag((20, 20), (WIDTH - 20, HEIGHT - 20))  # further than the avatar was ever seen from
    np.testing.assert_allclose(np.abs(_angles(page)), SCENE.camera.reach, atol=1e-3)
    page.bare(False)
    page.browser.click("document.getElementById('reset')")
    page.bare()
    np.testing.assert_array_equal(page.picture(), front)


def _angles(page: Page) -> np.ndarray:
    """How far the camera stands to the side and above, radians."""
    camera = SCENE.camera
    place = np.array(page.browser.evaluate("player._camera.position.toArray()"))
    right, up, back = place @ looking_at(camera.position, camera.target, camera.up)[:3, :3]
    return np.array([np.arctan2(right, back), np.arctan2(up, np.hypot(right, back))])


def test_it_plays_and_stops(page: Page) -> None:
    page.bare(False)
    page.browser.evaluate("player.show(0)")
    page.browser.click("document.getElementById('play')")
    seen: set[float] = set()
    wait_until(lambda: seen.add(page.browser.evaluate("player.place")) or len(seen) > 3, WITHIN, "it plays")
    page.browser.click("document.getElementById('play')")
    assert page.browser.evaluate("player.playing") is False
    place = page.browser.evaluate("player.redraw().then(() => player.place)")
    assert page.browser.evaluate("player.redraw().then(() => player.place)") == place


def test_words_are_words_and_no_address_was_asked_for(page: Page) -> None:
    assert page.browser.evaluate("document.querySelector('h1').textContent") == TITLE
    assert page.browser.evaluate("document.querySelector('b')") is None
    assert all(address.startswith(("file:", "blob:", "data:")) for address in page.browser.requests)


@pytest.mark.parametrize(("degree", "antialiased"), [(0, False), (1, True)])
def test_a_still_avatar_of_other_kinds(degree: int, antialiased: bool, tmp_path: Path) -> None:
    """One frame has no controls; fewer spherical harmonics; a rasterizer that makes up for its blur."""
    packed = ball(frames=1, degree=degree, rank=0, antialiased=antialiased).packed()
    (tmp_path / "still.html").write_text(render_page(packed, "Still", ""))
    with Browser(tmp_path / "profile", (WIDTH, HEIGHT)) as browser:
        still = Page(browser, tmp_path / "still.html")
        assert browser.evaluate("document.getElementById('controls').hidden") is True
        still.bare()
        assert_same_picture(still.picture(), picture(unpacked(packed), 0, WIDTH, HEIGHT))
        assert browser.errors == []


def test_a_damaged_page_says_so(tmp_path: Path) -> None:
    (tmp_path / "torn.html").write_text(render_page(SCENE.packed()[:-500], "Torn", ""))
    with Browser(tmp_path / "profile", (WIDTH, HEIGHT)) as browser:
        browser.open((tmp_path / "torn.html").as_uri())
        browser.wait_for(
            "document.getElementById('message').textContent.startsWith('The avatar cannot be shown')"
        )
        assert browser.evaluate("document.getElementById('message').hidden") is False
