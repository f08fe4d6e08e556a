"""Visitors who close their page while an edit goes on, and clocks that are set back."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import viser
from nerfstudio.viewer.viewer import Viewer
from websockets.sync.client import connect

from edit3dgs_ns.viewer.editing import Editing, new_image, past_visitors
from edit3dgs_ns.viewer.worker import Status, Worker
from tests.viewer.stepwise_session import StepwiseSession, until

CAMERA = {
    "type": "ViewerCameraMessage", "wxyz": [1.0, 0, 0, 0], "position": [0.0, 0, 1], "fov": 0.8, "aspect": 1.0,
    "look_at": [0.0, 0, 0], "up_direction": [0.0, 1, 0],
}  # fmt: skip


@pytest.mark.parametrize("slow_to_notice", [False, True])
def test_one_of_two_visitors_closes_the_page_in_mid_edit(slow_to_notice: bool) -> None:
    """The edit goes on, and whoever stays sees it; also where Nerfstudio hears of the visitor at another moment than viser."""
    server = viser.ViserServer(host="127.0.0.1", port=7480, verbose=False)
    drawn: dict[int, int] = {}
    viewer: Any = SimpleNamespace(
        ready=True, viser_server=server, render_statemachines={}, get_camera_state=lambda client: None
    )

    def draw(client: int) -> SimpleNamespace:
        return SimpleNamespace(action=lambda what: drawn.update({client: drawn.get(client, 0) + 1}))

    server.on_client_connect(
        lambda client: viewer.render_statemachines.update({client.client_id: draw(client.client_id)})
    )
    message = server.gui.add_markdown("")

    def report(status: Status) -> None:
        message.content = f"{status.state} {status.message}"
        redraw()

    redraw = past_visitors(lambda: Viewer._trigger_rerender(viewer))
    worker, session = Worker(report), StepwiseSession(4)
    try:
        address = f"ws://127.0.0.1:{server.get_port()}"
        visitors = [connect(address, proxy=None, max_size=None) for _ in range(2)]
        for visitor in visitors:
            visitor.send(msgspec.msgpack.encode(CAMERA))
        until(lambda: len(viewer.render_statemachines) == 2)
        first, second = sorted(viewer.render_statemachines)
        assert worker.edit(lambda: session)
        session.let.release()
        until(lambda: session.done == 1 and len(drawn) == 2)
        if slow_to_notice:
            del viewer.render_statemachines[first]  # viser still lists this one
        else:
            visitors[0].close()
            until(lambda: list(server.get_clients()) == [second])
        session.let.release(3)
        assert worker.wait(30)
        assert (session.done, session.end) == (4, "kept") and not worker.status.failed
        assert message.content == "idle The edit is done."
        if not slow_to_notice:
            assert drawn[second] > drawn[first]
    finally:
        server.stop()


def test_a_clock_that_is_set_back_does_not_hold_an_edit_up() -> None:
    """Nerfstudio remembers by the clock when a visitor has moved last: an hour ahead of now."""
    viewer = SimpleNamespace(last_move_time=time.time() + 3600)
    thread = threading.Thread(target=Editing._give_way, args=(SimpleNamespace(_viewer=viewer),), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_grids_are_shown_once_each_whatever_their_times(tmp_path: Path) -> None:
    shown: set[tuple[str, int]] = set()
    assert new_image(tmp_path / "nowhere", shown) is None
    grids = [tmp_path / f"round_{number:04d}.png" for number in range(3)]
    for number, grid in enumerate(grids[:2]):
        grid.write_bytes(b"x")
        os.utime(grid, (10_000 - number, 10_000 - number))
        assert new_image(tmp_path, shown) == grid
        assert new_image(tmp_path, shown) is None
    os.utime(grids[0], (5_000, 5_000))
    assert new_image(tmp_path, shown) == grids[0], "made anew"
