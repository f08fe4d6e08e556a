"""The page as its reader has it: opened from the disk by a real headless Chromium without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from edit3dgs_ns.flame.arkit import gaze_of
from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.rotations import axis_angle_to_quat, multiplied, quat_to_axis_angle
from edit3dgs_ns.web.packing import unpack
from edit3dgs_ns.web.page import render_page
from edit3dgs_ns.web.scene import unpacked
from tests.web_scenes import NAMES, ball, looking_at, picture, pose_at, posed
from tools.measure.pages.browser import (
    PageLog,
    chromium,
    decode_image,
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
ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 360, 300
WITHIN = 120
"""Seconds: what a busy machine may take, not what is expected."""
TITLE = "</h1><b>bold</b>"
CONTROLS = "[document.querySelector('header'), document.getElementById('panel'), document.getElementById('controls')]"
SCENE = unpacked(ball(before=True).centred().packed())
"""As it is stored, so that images differ by how they are drawn alone."""
HELD = dict(zip(NAMES, (0.9, 0.0, 0.4, 1.0), strict=True))
"""An expression by the names of ARKit."""


class Player:
    """An open page, whose controls may be hidden: then the canvas has the whole viewport."""

    def __init__(self, page: Page, file: Path, address: str = "#still"):
        self.page, self.file, self.log = page, file, PageLog(page)
        page.goto(f"{file.as_uri()}{address}")
        page.locator("body[data-drawn]").wait_for()

    def drawn(self, frame: int) -> None:
        self.page.locator(f'body[data-drawn="{frame}"]').wait_for()

    def show(self, what: str) -> None:
        """What `Player.show` of the page takes, as JavaScript."""
        self.page.evaluate(f"player.show({what})")

    def bare(self, hidden: bool = True) -> None:
        self.page.evaluate(f"for (const e of {CONTROLS}) e.hidden = {str(hidden).lower()}")
        wait_for_frame(self.page)
        self.page.evaluate("player.view.redraw()")

    def vertices(self) -> np.ndarray:
        """As the page has posed them, metres."""
        head = "player.view._head"
        texels = f"{head}.texture.image.data.subarray(0, 4 * {head}.rig.count)"
        found = np.array(self.page.evaluate(f"Array.from({texels})"))
        return found.reshape(-1, 4)[:, :3] / self.page.evaluate("UNITS")

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


def rebuilt(face: dict[str, Any] | None = None, frame: int = 0) -> FlamePose:
    """A frame's pose with other fields."""
    pose = pose_at(SCENE.motion, frame)
    fields = {name: torch.tensor([value], dtype=torch.float32) for name, value in (face or {}).items()}
    return replace(pose, **fields)


def test_it_reads_what_was_packed(player: Player) -> None:
    stored, _ = unpack(SCENE.packed())
    read = player.page.evaluate("Object.keys(player.view._avatar.arrays)")
    assert read == list(stored)
    for name in stored:
        values = player.page.evaluate(f"Array.from(player.view._avatar.arrays.{name}.values)")
        np.testing.assert_array_equal(
            np.array(values, stored[name].values.dtype), stored[name].values.ravel()
        )


def test_it_poses_the_head_as_the_rig_says(player: Player) -> None:
    for frame in range(len(SCENE.motion)):
        player.show(f"{{time: {frame}}}")
        expected = posed(SCENE.rig, pose_at(SCENE.motion, frame))
        np.testing.assert_allclose(player.vertices(), expected, atol=2e-6)


def test_between_frames_rotations_take_the_great_arc(player: Player) -> None:
    motion = FlameMotion(
        shape=torch.zeros(1),
        static_offset=None,
        **{name: torch.from_numpy(values).float() for name, values in vars(SCENE.motion).items()},
    )
    last = len(SCENE.motion) - 1
    for time in (0.25, 1.5, 2.9):
        player.show(f"{{time: {time}}}")
        expected = posed(SCENE.rig, motion.interpolate(time / last))
        np.testing.assert_allclose(player.vertices(), expected, atol=3e-6)


def test_it_draws_what_the_rasterizer_draws(player: Player) -> None:
    player.bare()
    for frame in (0, 3):
        player.show(f"{{time: {frame}}}")
        assert_same_picture(player.image(), picture(SCENE, frame, WIDTH, HEIGHT))


def test_an_expression_is_held_while_the_head_moves_on(player: Player) -> None:
    player.bare()
    player.show(f"{{time: 0, face: player.source.fromActions({json.dumps({**HELD, 'jawOpen': 0.5})})}}")
    held = {"expr": list(HELD.values()), "jaw_pose": [0.17, 0, 0], "eyes_pose": [0] * 6}
    for frame in (0, 2):
        player.show(f"{{time: {frame}}}")
        np.testing.assert_allclose(player.vertices(), posed(SCENE.rig, rebuilt(held, frame)), atol=2e-6)
    # The colours and means that follow the expression, too.
    assert_same_picture(player.image(), picture(SCENE, rebuilt(held, 2), WIDTH, HEIGHT))
    player.page.evaluate("player.toggleHold()")
    np.testing.assert_allclose(player.vertices(), posed(SCENE.rig, pose_at(SCENE.motion, 2)), atol=2e-6)


def test_gaze_turns_as_arkit_says(player: Player) -> None:
    amounts = {"eyeLookDownLeft": 0.5, "eyeLookOutLeft": 1, "eyeLookInRight": 1, "eyeLookUpRight": 0.2}
    found = player.page.evaluate(f"player.source.fromActions({json.dumps(amounts)}).eyes_pose")
    rows = {name: np.array([amount], np.float32) for name, amount in amounts.items()}
    np.testing.assert_allclose(found, gaze_of(rows, 1)[0], atol=1e-6)


def test_a_slider_holds_what_it_changes(player: Player) -> None:
    player.bare(False)
    player.show("{time: 1}")
    player.page.get_by_role("slider", name="Jaw", exact=True).fill("20")
    player.page.get_by_role("slider", name="Turn", exact=True).fill("-30")
    wait_for_frame(player.page)
    neck = [*SCENE.motion.neck_pose[1]]
    neck[1] = -np.pi / 6
    jaw = [np.pi / 9, *SCENE.motion.jaw_pose[1][1:]]
    expected = posed(SCENE.rig, rebuilt({"jaw_pose": jaw, "neck_pose": neck}, 1))
    wait_until(lambda: np.abs(player.vertices() - expected).max() < 2e-6, WITHIN, "the sliders' pose")
    player.page.get_by_role("button", name="Follow the motion again").click()
    expected = posed(SCENE.rig, pose_at(SCENE.motion, 1))
    wait_until(lambda: np.abs(player.vertices() - expected).max() < 2e-6, WITHIN, "the motion's pose")


def test_another_page_moves_the_face_by_messages(player: Player) -> None:
    player.bare()
    player.show("{time: 1, face: null, neck: null}")
    message = {
        "type": "edit3dgs",
        "coefficients": {
            "MouthSmileLeft": 0.9,
            "browInnerUp": 0.4,
            "jawForward": 1,
            "jawOpen": 0.5,
            "x": "y",
        },
        "head": {"yaw": 20, "pitch": 10},
    }
    player.page.evaluate(f"postMessage({json.dumps(message)})")
    yaw, pitch = (torch.tensor(np.radians(angle)).float() for angle in ([0, 20, 0], [10, 0, 0]))
    neck = quat_to_axis_angle(multiplied(axis_angle_to_quat(yaw), axis_angle_to_quat(pitch)))
    held = {
        "expr": list(HELD.values()),
        "jaw_pose": [0.17, 0, 0],
        "eyes_pose": [0] * 6,
        "neck_pose": neck.tolist(),
    }
    expected = posed(SCENE.rig, rebuilt(held, 1))
    wait_until(lambda: np.abs(player.vertices() - expected).max() < 3e-6, WITHIN, "the message's pose")
    for other in (
        '"text"',
        "{type: 'edit3dgs', coefficients: {jawOpen: NaN}}",
        "{coefficients: {jawOpen: 1}}",
    ):
        player.page.evaluate(f"postMessage({other})")
    wait_for_frame(player.page)
    assert np.abs(player.vertices() - expected).max() < 3e-6
    player.page.evaluate("postMessage({type: 'edit3dgs', release: true})")
    own = posed(SCENE.rig, pose_at(SCENE.motion, 1))
    wait_until(lambda: np.abs(player.vertices() - own).max() < 3e-6, WITHIN, "the motion's pose")


def test_the_wipe_shows_before_on_the_left_and_after_on_the_right(player: Player) -> None:
    player.bare()
    player.show("{time: 2}")
    after = picture(SCENE, 2, WIDTH, HEIGHT)
    before = picture(SCENE, 2, WIDTH, HEIGHT, SCENE.before)
    assert np.abs(before - after).mean() > 0.03
    hide = "document.getElementById('wipe').hidden = true"
    player.page.evaluate(f"player.wipeTo(0.5).then(() => {{ {hide} }})")
    half = WIDTH // 2
    assert_same_picture(player.image(), np.concatenate([before[:, :half], after[:, half:]], axis=1))
    player.page.evaluate(f"player.wipeTo(1).then(() => {{ {hide} }})")
    assert_same_picture(player.image(), before)
    player.page.evaluate("player.wipeTo(0)")
    assert_same_picture(player.image(), after)


def test_keys_wipe_hold_and_step(player: Player) -> None:
    player.bare(False)
    player.show("{time: 0}")
    press = player.page.keyboard.press
    player.page.evaluate("document.activeElement.blur()")
    press("b")
    assert player.page.locator("#compare").get_attribute("aria-pressed") == "true"
    press("b")
    assert player.page.locator("#compare").get_attribute("aria-pressed") == "false"
    press("h")
    player.page.get_by_role("button", name="Follow the motion again").wait_for()
    press("h")
    press("ArrowRight")
    player.drawn(1)


def test_a_png_is_what_is_seen(player: Player) -> None:
    player.bare()
    player.show("{time: 3}")
    with player.page.expect_download() as saved:
        player.page.keyboard.press("s")
    assert saved.value.suggested_filename.endswith("_4.png")
    image = decode_image(Path(saved.value.path()).read_bytes()) / 255
    assert_same_picture(image, picture(SCENE, 3, WIDTH, HEIGHT))


def test_the_slider_moves_it(player: Player) -> None:
    player.bare(False)
    player.show("{time: 0}")
    at_start = player.image()
    player.page.locator("#frame").focus()
    player.page.keyboard.press("End")
    player.drawn(3)
    assert np.abs(player.image() - at_start).mean() > 0.01
    assert player.page.locator("#number").text_content() == "4 / 4"
    player.bare()
    assert_same_picture(player.image(), picture(SCENE, 3, WIDTH, HEIGHT))


def test_the_mouse_turns_it_and_a_button_turns_it_back(player: Player) -> None:
    player.bare()
    player.show("{time: 0}")
    front = player.image()
    drag(player.page, (WIDTH // 2, HEIGHT // 2), (WIDTH // 2 + 30, HEIGHT // 2 + 10))
    player.page.evaluate("player.view.redraw()")
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
    place = np.array(player.page.evaluate("player.view.camera.position.toArray()"))
    right, up, back = place @ looking_at(camera.position, camera.target, camera.up)[:3, :3]
    return np.array([np.arctan2(right, back), np.arctan2(up, np.hypot(right, back))])


def test_it_plays_and_stops(player: Player) -> None:
    player.bare(False)
    player.show("{time: 0}")
    player.page.locator("#play").click()
    seen: set[float] = set()
    wait_until(lambda: seen.add(player.page.evaluate("player.time")) or len(seen) > 3, WITHIN, "it plays")
    player.page.locator("#play").click()
    assert player.page.evaluate("player.playing") is False
    place = player.page.evaluate("player.view.redraw().then(() => player.time)")
    assert player.page.evaluate("player.view.redraw().then(() => player.time)") == place


def test_words_are_words_and_no_address_was_asked_for(player: Player) -> None:
    assert player.page.evaluate("document.querySelector('h1').textContent") == TITLE
    assert player.page.evaluate("document.querySelector('b')") is None
    assert all(address.startswith(("file:", "blob:", "data:")) for address in player.log.requests)


@pytest.mark.parametrize(("degree", "antialiased"), [(0, False), (1, True)])
def test_a_still_avatar_of_other_kinds(
    degree: int, antialiased: bool, browser: Browser, tmp_path: Path
) -> None:
    """One frame cannot be played; fewer spherical harmonics; a rasterizer that makes up for its blur."""
    packed = ball(frames=1, degree=degree, rank=0, antialiased=antialiased, names=None).packed()
    (tmp_path / "still.html").write_text(render_page(packed, "Still", ""))
    still = Player(new_page(browser, (WIDTH, HEIGHT), offline=True), tmp_path / "still.html")
    assert still.page.locator("#play").is_hidden() and still.page.locator("#compare").is_hidden()
    still.bare()
    assert_same_picture(still.image(), picture(unpacked(packed), 0, WIDTH, HEIGHT))
    still.assert_no_errors()


def test_the_address_says_what_is_shown(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "avatar.html").write_text(render_page(SCENE.packed(), "Shared", "", poster=b"\xff\xd8\xff"))
    page = new_page(browser, (WIDTH, HEIGHT), offline=True)
    words = "?t=0.5&expression=browInnerUp:0.5,mouthsmileleft"
    asked = Player(page, tmp_path / "avatar.html", words)
    pose = FlameMotion(
        shape=torch.zeros(1),
        static_offset=None,
        **{name: torch.from_numpy(values).float() for name, values in vars(SCENE.motion).items()},
    ).interpolate(0.5)
    held = replace(
        pose,
        expr=torch.tensor([[1.0, 0, 0.5, 0]]),
        jaw_pose=torch.zeros(1, 3),
        eyes_pose=torch.zeros(1, 6),
    )
    np.testing.assert_allclose(asked.vertices(), posed(SCENE.rig, held), atol=3e-6)
    assert page.evaluate("player.playing") is False
    assert page.locator("#poster").is_hidden()
    asked.assert_no_errors()


def test_a_recording_moves_the_face_through_a_websocket(browser: Browser, tmp_path: Path) -> None:
    """By the program in examples/."""
    rows = [{"jawOpen": 0.5, **HELD}]
    (tmp_path / "talk.json").write_text(json.dumps({"fps": 30, "frames": rows}))
    command = [
        sys.executable,
        "-u",
        "examples/stream_to_a_page.py",
        str(tmp_path / "talk.json"),
        "--port",
        "0",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            (tmp_path / "live.html").write_text(render_page(SCENE.packed(), "Live", "", stream=address))
            live = Player(new_page(browser, (WIDTH, HEIGHT)), tmp_path / "live.html")
            held = {"expr": list(HELD.values()), "jaw_pose": [0.17, 0, 0], "eyes_pose": [0] * 6}
            expected = posed(SCENE.rig, rebuilt(held))
            wait_until(
                lambda: np.abs(live.vertices() - expected).max() < 3e-6, WITHIN, "the recording's pose"
            )
            live.assert_no_errors()
        finally:
            server.terminate()


@pytest.mark.parametrize("size", [(390, 844), (1280, 800)])
def test_nothing_hangs_over_the_edge(size: tuple[int, int], player: Player, browser: Browser) -> None:
    """On a phone and on a laptop every control is inside the window, with the panel open."""
    opened = Player(new_page(browser, size, offline=True), Path(player.file))
    opened.page.evaluate("player.togglePanel(true)")
    wait_for_frame(opened.page)
    boxes = opened.page.locator("#controls button:visible, #controls select, #frame, #panel, #canvas")
    for box in (boxes.nth(n).bounding_box() for n in range(boxes.count())):
        assert box is not None and box["x"] >= 0 and box["y"] >= 0
        assert box["x"] + box["width"] <= size[0] + 0.5 and box["y"] + box["height"] <= size[1] + 0.5
    canvas = opened.page.locator("#canvas").bounding_box()
    assert canvas is not None and canvas["height"] > 0.4 * size[1]
    opened.assert_no_errors()


def test_a_damaged_page_says_so(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "torn.html").write_text(render_page(SCENE.packed()[:-500], "Torn", ""))
    page = new_page(browser, (WIDTH, HEIGHT), offline=True)
    page.goto((tmp_path / "torn.html").as_uri())
    message = page.get_by_text("The avatar cannot be shown")
    message.wait_for()
    assert message.get_attribute("id") == "message"
