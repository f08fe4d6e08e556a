"""Motions in the viewer's tab Move: read and tracked by a thread, with progress, errors and a way back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edit3dgs_ns.evaluation.video import VideoWriter
from tests.known_edits import known_avatar
from tests.speaking_video import write_speaking_video

pytest.importorskip("mediapipe", reason="mediapipe is not installed: see edit3dgs doctor")
PORT = 7431


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking_video(tmp_path_factory.mktemp("videos") / "talk.mp4")


@pytest.fixture(scope="module")
def motions(tiny_capture: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from nerfstudio.utils.eval_utils import eval_setup

    from edit3dgs_ns.training.model_setup import head_assets
    from edit3dgs_ns.viewer.motions import Motions

    config = known_avatar(tiny_capture.union, tmp_path_factory.mktemp("avatar"))
    _, pipeline, _, _ = eval_setup(config, test_mode="test")
    return Motions(pipeline.model, head_assets(pipeline.datamanager.train_dataset.metadata))


@pytest.fixture
def panel(motions: Any, tmp_path: Path) -> Iterator[Any]:
    import viser

    from edit3dgs_ns.viewer.motion_panel import MotionPanel

    server = viser.ViserServer(host="127.0.0.1", port=PORT, verbose=False)
    shown: list[str] = []
    try:
        made = MotionPanel(server, motions, tmp_path, shown.append)
        made.shown = shown  # type: ignore[attr-defined]
        yield made
    finally:
        server.stop()


def test_a_video_is_tracked_in_the_background_and_played_at_its_own_rate(
    panel: Any, motions: Any, talk: Path
) -> None:
    said: list[tuple[str, float | None]] = []
    say = panel._say
    panel._say = lambda message, share=None: (said.append((message, share)), say(message, share))
    panel.start(str(talk))
    assert panel._reading is not None and panel._bar.visible and panel._cancel.visible, "it returns at once"
    assert panel.wait(240)
    assert panel._choice.value == "talk.mp4" and "talk.mp4" in motions.names()
    _, frames = motions.get("talk.mp4")
    assert frames == 10 and motions.fps("talk.mp4") == pytest.approx(12.0)
    assert not panel._bar.visible and not panel._message.visible
    shares = [share for message, share in said if message.startswith("Finding the face")]
    assert len(shares) > 0 and all(share is not None and 0 <= share <= 1 for share in shares)


def test_what_goes_wrong_is_said_in_the_panel(panel: Any, motions: Any, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "wall.mp4", 12.0) as video:
        for _ in range(12):
            video.add(np.full((64, 64, 3), 128, np.uint8))
    before = motions.names()
    for source, message in (
        (tmp_path / "wall.mp4", "no face was found"),
        (tmp_path / "none.mp4", "no such file"),
    ):
        panel.start(str(source))
        assert panel.wait(120)
        assert message in panel._message.content and panel._message.visible and not panel._bar.visible
        assert "motion " not in panel._message.content, "there are no flags in a window"
    assert motions.names() == before


def test_another_choice_gives_up_what_is_being_read(
    panel: Any, motions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    add = motions.add

    def slow(source: str, progress: Any) -> str:
        if not source.endswith("slow.mp4"):
            return add(source, progress)
        progress("Finding the face", 0, 9)
        begun.set()
        assert go_on.wait(20)
        progress("Finding the face", 1, 9)
        raise AssertionError("it was not given up")

    monkeypatch.setattr(motions, "add", slow)
    (tmp_path / "take.json").write_text('[{"jawOpen": 0.0}, {"jawOpen": 0.5}]')
    panel.start("slow.mp4")
    assert begun.wait(20)
    panel.start(str(tmp_path / "take.json"))
    go_on.set()
    assert panel.wait(60)
    assert panel._choice.value == "take.json" and "slow.mp4" not in motions.names()
    # Another one of the same name is another choice; the same one again is not.
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "take.json").write_text('[{"jawOpen": 0.0}]')
    for path, name in (("second/take.json", "take.json (second)"), ("take.json", "take.json")):
        panel.start(str(tmp_path / path))
        assert panel.wait(60) and panel._choice.value == name
    assert len([name for name in motions.names() if name.startswith("take.json")]) == 2
    begun.clear(), go_on.clear()
    panel.start("slow.mp4")
    assert begun.wait(20)
    panel.cancel()
    go_on.set()
    assert "Cancelled" in panel._message.content and not panel._bar.visible


def test_what_is_to_know_of_a_motion_is_said(
    panel: Any, motions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new.json").write_text('[{"jawOpen": 0.0}]')
    panel.start(str(tmp_path / "new.json"))
    assert panel.wait(60) and panel._choice.value == "new.json"
    monkeypatch.setattr(motions, "notes", lambda name: (f"3 frames of {name} are a guess",))
    panel.start(str(tmp_path / "new.json"))
    assert panel.wait(60)
    assert "3 frames of new.json are a guess" in panel._message.content and panel._message.visible


def test_a_video_from_the_browser_is_kept_with_the_run(
    panel: Any, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(panel, "start", started.append)
    kept = tmp_path / "videos" / "me.mp4"
    panel.upload("../../me.mp4", talk.read_bytes())
    assert started == [str(kept)] and kept.read_bytes() == talk.read_bytes()
    stamp = kept.stat().st_mtime_ns
    panel.upload("me.mp4", talk.read_bytes())
    assert kept.stat().st_mtime_ns == stamp, "the same video is not tracked again"
    panel.upload("me.mp4", b"another")
    assert kept.read_bytes() == b"another"
