"""The page as its reader has it: opened from the disk by a real headless Chromium without a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edit3dgs_ns.web.packing import unpack
from edit3dgs_ns.web.page import render_page
from edit3dgs_ns.web.scene import unpacked
from tests.web_scenes import ball, looking_at, picture
from tools.measure.pages.browser import (
    PageLog,
    chromium,
    drag,
    find_chromium,
    new_page,
    screenshot,
    wait_for_frame,
    wait_until,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

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


class Player:
    """An open page, whose controls may be hidden: then the canvas has the whole viewport."""

    def __init__(self, page: Page, file: Path):
        self.page, self.log = page, PageLog(page)
        page.goto(f"{file.as_uri()}#still")
        self.drawn(0)

    def drawn(self, frame: int) -> None:
        self.page.locator(f'body[data-drawn="{frame}"]').wait_for()

    def bare(self, hidden: bool = True) -> None:
        self.page.evaluate(f"for (const e of {CONTROLS}) e.hidden = {str(hidden).lower()}")
        wait_for_frame(self.page)
        self.page.evaluate("player.redraw()")

    def image(self) -> np.ndarray:
        return screenshot(self.page) / 255

    def assert_no_errors(self) -> None:
        assert self.log.uncaught == [] and self.log.complaints == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def player(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Player]:
    file = tmp_path_factory.mktemp("page") / "avatar.html"
    file.write_text(render_page(SCENE.packed(), TITLE, "“Turn it green”"))
    player = Player(new_page(browser, (WIDTH, HEIGHT), offline=True), file)
    yield player
    player.assert_no_errors()


def assert_same_picture(found: np.ndarray, expected: np.ndarray) -> None:
    """The same but for the last bits: the browser adds up in 8 bits."""
    covered, should = (image.min(axis=-1) < 0.9 for image in (found, expected))
    assert (covered & should).sum() > 0.97 * (covered | should).sum() > 0.1 * covered.size
    assert np.abs(found - expected).mean() < 1.5 / 255
    assert np.abs(_blocks(found) - _blocks(expected)).max() < 3 / 255


def _blocks(image: np.ndarray, side: int = 20) -> np.ndarray:
    height, width = image.shape[0] // side, image.shape[1] // side
    return image.reshape(height, side, width, side, 3).mean(axis=(1, 3))


def test_it_reads_what_was_packed(player: Player) -> None:
    stored, _ = unpack(SCENE.packed())
    for name in ("vertices", "faces", "binding", "quats", "colors", "offsets", "codes"):
        read = player.page.evaluate(f"Array.from(player.gaussians.avatar.arrays.{name}.values)")
        np.testing.assert_array_equal(np.array(read), stored[name].values.ravel())


def test_it_draws_what_the_rasterizer_draws(player: Player) -> None:
    player.bare()
    for frame in (0, 3):
        player.page.evaluate(f"player.show({frame})")
        assert_same_picture(player.image(), picture(SCENE, frame, WIDTH, HEIGHT))
    # Between two frames the vertices move straight.
    player.page.evaluate("player.show(1.5)")
    between = {name: getattr(SCENE, name)[1:3].mean(axis=0, keepdims=True) for name in ("vertices", "codes")}
    half = replace(SCENE, **between)
    assert_same_picture(player.image(), picture(half, 0, WIDTH, HEIGHT))


def test_the_slider_moves_it(player: Player) -> None:
    player.bare(False)
    player.page.evaluate("player.show(0)")
    at_start = player.image()
    player.page.locator("#frame").click()
    wait_for_frame(player.page)
    player.page.keyboard.press("End")
    player.drawn(3)
    assert np.abs(player.image() - at_start).mean() > 0.02
    assert player.page.evaluate("document.getElementById('number').textContent") == "4 / 4"
    player.bare()
    assert_same_picture(player.image(), picture(SCENE, 3, WIDTH, HEIGHT))


def test_the_mouse_turns_it_and_a_button_turns_it_back(player: Player) -> None:
    player.bare()
    player.page.evaluate("player.show(0)")
    front = player.image()
    drag(player.page, (WIDTH // 2, HEIGHT // 2), (WIDTH // 2 + 30, HEIGHT // 2 + 10))
    player.page.evaluate("player.redraw()")
    assert np.abs(player.image() - front).mean() > 0.02
    assert 0.3 < abs(_angles(player)[0]) < SCENE.camera.reach[0] - 0.1
    drag(player.page, (20, 20), (WIDTH - 20, HEIGHT - 20))  # further than the avatar was ever seen from
    np.testing.assert_allclose(np.abs(_angles(player)), SCENE.camera.reach, atol=1e-3)
    player.bare(False)
    player.page.locator("#reset").click()
    player.bare()
    np.testing.assert_array_equal(player.image(), front)


def _angles(player: Player) -> np.ndarray:
    """How far the camera stands to the side and above, radians."""
    camera = SCENE.camera
    place = np.array(player.page.evaluate("player._camera.position.toArray()"))
    right, up, back = place @ looking_at(camera.position, camera.target, camera.up)[:3, :3]
    return np.array([np.arctan2(right, back), np.arctan2(up, np.hypot(right, back))])


def test_it_plays_and_stops(player: Player) -> None:
    player.bare(False)
    player.page.evaluate("player.show(0)")
    player.page.locator("#play").click()
    seen: set[float] = set()
    wait_until(lambda: seen.add(player.page.evaluate("player.time")) or len(seen) > 3, WITHIN, "it plays")
    player.page.locator("#play").click()
    assert player.page.evaluate("player.playing") is False
    place = player.page.evaluate("player.redraw().then(() => player.time)")
    assert player.page.evaluate("player.redraw().then(() => player.time)") == place


def test_words_are_words_and_no_address_was_asked_for(player: Player) -> None:
    assert player.page.evaluate("document.querySelector('h1').textContent") == TITLE
    assert player.page.evaluate("document.querySelector('b')") is None
    assert all(address.startswith(("file:", "blob:", "data:")) for address in player.log.requests)


@pytest.mark.parametrize(("degree", "antialiased"), [(0, False), (1, True)])
def test_a_still_avatar_of_other_kinds(
    degree: int, antialiased: bool, browser: Browser, tmp_path: Path
) -> None:
    """One frame has no controls; fewer spherical harmonics; a rasterizer that makes up for its blur."""
    packed = ball(frames=1, degree=degree, rank=0, antialiased=antialiased).packed()
    (tmp_path / "still.html").write_text(render_page(packed, "Still", ""))
    still = Player(new_page(browser, (WIDTH, HEIGHT), offline=True), tmp_path / "still.html")
    assert still.page.locator("#controls").is_hidden()
    still.bare()
    assert_same_picture(still.image(), picture(unpacked(packed), 0, WIDTH, HEIGHT))
    still.assert_no_errors()


def test_a_damaged_page_says_so(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "torn.html").write_text(render_page(SCENE.packed()[:-500], "Torn", ""))
    page = new_page(browser, (WIDTH, HEIGHT), offline=True)
    page.goto((tmp_path / "torn.html").as_uri())
    message = page.get_by_text("The avatar cannot be shown")
    message.wait_for()
    assert message.get_attribute("id") == "message"
