"""A face in front of the (fake) camera of a real Chromium moves the avatar's: MediaPipe runs in the page, without a network."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from edit3dgs_ns.capture.cameras import arc_cameras
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.synthetic.identity import random_identity
from edit3dgs_ns.synthetic.motion import SEQUENCES, act
from edit3dgs_ns.synthetic.scene import Frame, Scene
from edit3dgs_ns.synthetic.settings import EXTENT, TARGET
from edit3dgs_ns.web.page import render_page
from tests.web_scenes import ball
from tools.measure.pages.browser import PageLog, chromium, find_chromium, new_page, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)
SIZE = 224
WITHIN = 240
"""Seconds: what a busy machine may take, not what is expected."""
LONG = 60
"""Frames of the fake camera that a face is shown for, at 30 a second."""


def _face(frame: Frame, jaw: float, turn: float) -> bytes:
    """A rendered person as a JPEG: the jaw open and the head turned to its left, by radians."""
    identity = _IDENTITY
    zeros = np.zeros(3, frame.rotation.dtype)
    posed = replace(
        frame,
        expr=np.zeros_like(frame.expr),
        rotation=zeros,
        neck_pose=np.array([0.0, turn, 0.0]),
        jaw_pose=np.array([jaw, 0.0, 0.0]),
        eyes_pose=np.zeros(6),
        translation=zeros,
    )
    camera = arc_cameras(1, SIZE, SIZE, np.array(TARGET), EXTENT)[0]
    seen = Scene(identity, posed).trace(camera.c2w, camera.K, SIZE, SIZE, samples_per_pixel=4)
    image = Image.fromarray((255 * seen.shade(identity.appearance).rgb.clip(0, 1)).round().astype(np.uint8))
    file = io.BytesIO()
    image.resize((2 * SIZE, 2 * SIZE)).save(file, "JPEG", quality=92)
    return file.getvalue()


_IDENTITY = random_identity(5, OPEN_HEAD_PATH)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Its camera shows a face at rest, one with an open mouth, one turned aside, over and over."""
    frame = act(_IDENTITY.head, SEQUENCES[0], 1, 0)[0]
    faces = [_face(frame, 0.0, 0.0), _face(frame, 0.3, 0.0), _face(frame, 0.0, 0.35)]
    video = tmp_path_factory.mktemp("camera") / "face.mjpeg"
    video.write_bytes(b"".join(LONG * face for face in faces))
    flags = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={video}",
    )
    with chromium(*flags) as browser:
        yield browser


def test_the_visitors_face_moves_the_avatar(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "live.html"
    file.write_text(
        render_page(ball(subdivisions=1, degree=0, rank=0).centred().packed(), "Live", "", webcam=True)
    )
    assert file.stat().st_size < 25e6
    page = new_page(browser, (320, 240), offline=True)
    log = PageLog(page)
    page.goto(f"{file.as_uri()}#still")
    page.locator("body[data-drawn]").wait_for()
    page.evaluate("player.webcam.toggle(), undefined")
    seen: list[tuple[float, float]] = []

    def both_were_seen() -> bool:
        face, neck = page.evaluate("[player.source.face, player.source.neck]")
        if face is not None:
            seen.append((face["jaw_pose"][0], neck[1]))
        if len(seen) > 100:  # the face at rest was not measured at rest
            page.evaluate("player.webcam._meter.calibrate()")
            seen.clear()
        jaws, turns = np.array(seen).reshape(-1, 2).T
        return len(seen) > 0 and np.ptp(jaws) > 0.12 and np.ptp(turns) > 0.2

    wait_until(both_were_seen, WITHIN, "an open mouth and a turned head")
    # Mouth and head are told apart: where the head turns, the mouth is shut. In a mirror, the subject's left is the avatar's right.
    jaws, turns = np.array(seen).T
    ahead = np.median(turns[jaws > jaws.min() + 0.1])
    assert turns.min() < ahead - 0.15 and jaws[turns.argmin()] < 0.5 * jaws.max()
    page.evaluate("player.webcam.toggle(), undefined")
    wait_until(lambda: page.evaluate("player.source.face") is None, WITHIN, "the camera is off")
    assert page.locator("#video").is_hidden()
    assert not log.uncaught
    assert all(address.startswith(("file:", "blob:", "data:")) for address in log.requests)


def test_without_a_camera_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "none.html"
    file.write_text(
        render_page(ball(subdivisions=1, degree=0, rank=0).centred().packed(), "Live", "", webcam=True)
    )
    page = new_page(browser, (800, 600), offline=True)
    page.add_init_script(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError'))"
    )
    page.goto(f"{file.as_uri()}#still")
    page.locator("body[data-drawn]").wait_for()
    page.locator("#webcam").click()
    page.get_by_text("The browser gives this page no camera.").wait_for()
    assert page.locator("#webcam").get_attribute("aria-pressed") == "false"
