"""What a page that is not the viewer's own, and a client that is no page, can do to a viewer: nothing."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from edit3dgs_ns.viewer.origins import VARIABLE, AllowedOrigins

WITHIN = 20.0
CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": (0.0, 1.0, 0.0, 0.0),
    "position": (0.0, 0.0, 10.0),
    "fov": 0.42,
    "aspect": 1.0,
    "look_at": (0.0, 0.0, 0.0),
    "up_direction": (0.0, 1.0, 0.0),
}


# -- origins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:7007", "http://127.0.0.1:7007"),
        ("localhost:9000", "http://localhost:9000"),  # ssh -L 9000:127.0.0.1:7007
        ("[::1]:7007", "http://[::1]:7007"),
        ("192.168.0.5:7007", "http://192.168.0.5:7007"),
        ("LocalHost:7007", "http://localhost:7007"),
        ("127.0.0.1:7007", None),  # no browser
        ("viewer.example.org", "https://viewer.example.org"),
        ("localhost:7007", "https://viewer.example.org"),  # a proxy that sets Host
        ("my-share.example.net", "https://my-share.example.net"),
    ],
)
def test_own_pages_and_listed_ones_are_answered(host: str, origin: str | None) -> None:
    allowed = AllowedOrigins.of("127.0.0.1", {VARIABLE: "https://viewer.example.org, "})
    shared = ["https://my-share.example.net"]
    assert allowed.refusal([host], [] if origin is None else [origin], shared) is None


@pytest.mark.parametrize(
    ("hosts", "origins"),
    [
        (["127.0.0.1:7007"], ["https://evil.example"]),
        (["127.0.0.1:7007"], ["null"]),
        (["127.0.0.1:7007"], [""]),
        (["127.0.0.1:7007"], ["http://127.0.0.1:8080"]),  # another program on this machine
        (["127.0.0.1:7007"], ["http://127.0.0.1:7007.evil.example"]),
        (["127.0.0.1:7007"], ["http://127.0.0.1:7007@evil.example"]),
        (["127.0.0.1:7007"], ["http://127.0.0.1:7007", "https://evil.example"]),
        (["evil.example:7007"], ["http://evil.example:7007"]),  # DNS rebinding
        (["evil.example:7007"], []),
        (["127.0.0.1@evil.example"], []),
        (["127.0.0.1:7007", "evil.example"], []),
        ([], []),
        (["[::1"], []),
    ],
)
def test_foreign_pages_are_refused_and_told_the_way_out(hosts: list[str], origins: list[str]) -> None:
    reason = AllowedOrigins.of("127.0.0.1", {}).refusal(hosts, origins)
    assert reason is not None and (VARIABLE in reason or len(hosts) != 1)
    assert reason.isprintable()


def test_beyond_loopback_this_machine_has_a_name() -> None:
    name = socket.gethostname()
    assert AllowedOrigins.of("0.0.0.0", {}).refusal([f"{name}:7007"], [f"http://{name}:7007"]) is None


@given(st.text(), st.text())
def test_no_header_is_too_strange_to_be_refused(host: str, origin: str) -> None:
    reason = AllowedOrigins.of("127.0.0.1", {}).refusal([host], [origin])
    assert reason is None or reason.isascii() or host or origin


# -- a real server -----------------------------------------------------------------------------------------------------


class Panel:
    """A server of viser with an element of every kind that is used here, and what has become of each."""

    def __init__(self) -> None:
        import viser

        from edit3dgs_ns.viewer.guard import guard_viewers

        guard_viewers()
        self.server = viser.ViserServer(host="127.0.0.1", port=7440, verbose=False)
        gui, self.pressed, self.uploaded = self.server.gui, 0, b""
        self.elements: dict[str, Any] = {
            "slider": gui.add_slider("Max res", 64, 2048, 1, 512),
            "number": gui.add_number("Guidance", 0.0, min=0.0, max=30.0),
            "free": gui.add_number("Min", 0.0),
            "text": gui.add_text("Prompt", "old"),
            "name": gui.add_text("Render name", "old"),
            "folder": gui.add_text("Output Directory", "exports/splat/"),
            "choice": gui.add_dropdown("Model", ("demo", "real")),
            "group": gui.add_button_group("", ("24", "30")),
            "check": gui.add_checkbox("Loop", False),
            "size": gui.add_vector2("Resolution", (1920, 1080), min=(50, 50), max=(10_000, 10_000)),
            "color": gui.add_rgb("Background color", (1, 2, 3)),
            "still": gui.add_number("Duration (sec)", 0.0, disabled=True),
            "hidden": gui.add_checkbox("Hidden", False, visible=False),
            "button": gui.add_button("Undo last edit"),
            "upload": gui.add_upload_button("Choose a video"),
        }
        self.elements["button"].on_click(lambda _: setattr(self, "pressed", self.pressed + 1))
        self.elements["upload"].on_upload(
            lambda _: setattr(self, "uploaded", self.elements["upload"].value.content)
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.get_port()}"

    def open(self, **headers: str) -> ClientConnection:
        """A client without a browser, or one with the headers of a browser."""
        return connect(
            f"ws://{self.address}", additional_headers=headers, proxy=None, max_size=None, open_timeout=WITHIN
        )

    def value(self, name: str) -> Any:
        return self.elements[name].value

    def get(self, path: str, host: str | None = None) -> bytes:
        """The raw answer to a request that no library has tidied up."""
        with socket.create_connection(("127.0.0.1", self.server.get_port())) as raw:
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {host or self.address}\r\n\r\n".encode())
            raw.settimeout(WITHIN)
            answer = b""
            while chunk := raw.recv(65536):
                answer += chunk
        return answer


class Visitor:
    """A client that speaks viser's protocol."""

    def __init__(self, panel: Panel, **headers: str):
        self.panel, self.socket = panel, panel.open(**headers)
        self.say(**CAMERA)

    def say(self, **message: Any) -> None:
        self.socket.send(msgspec.msgpack.encode(message))

    def set(self, name: str, value: Any, **more: Any) -> None:
        handle = self.panel.elements[name]
        self.say(type="GuiUpdateMessage", id=handle._impl.id, updates={"value": value, **more})

    def settle(self) -> None:
        """Returns once what was said has been dealt with: messages are begun in their order, by several threads."""
        for _ in range(3):
            now = self.panel.pressed + 1
            self.set("button", True)
            wait_until(lambda now=now: self.panel.pressed >= now)  # type: ignore[misc]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def panel() -> Iterator[Panel]:
    panel = Panel()
    yield panel
    panel.server.stop()


@pytest.fixture
def visitor(panel: Panel) -> Iterator[Visitor]:
    visitor = Visitor(panel)
    yield visitor
    visitor.socket.close()


def test_only_this_machine_reaches_the_socket(panel: Panel) -> None:
    listening = panel.server._websock_server._ws_server
    assert listening is not None
    assert [opened.getsockname()[0] for opened in listening.sockets] == ["127.0.0.1"]


def test_a_foreign_page_cannot_press_a_button(panel: Panel, capsys: pytest.CaptureFixture[str]) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}):
        for _ in range(2):
            with pytest.raises(InvalidStatus) as refused:
                panel.open(**headers)
            assert refused.value.response.status_code == 403
    assert panel.pressed == 0
    said = capsys.readouterr().err
    assert said.count("evil.example' asked for it") == 1 and VARIABLE in said, "once, with the way out"
    with panel.open(Origin=f"http://{panel.address}") as own:
        assert own.recv(timeout=WITHIN)


def test_no_file_of_this_machine_and_no_foreign_host_is_served(panel: Panel) -> None:
    page = panel.get("/")
    assert b"200 OK" in page and b"frame-ancestors 'self'" in page
    assert b"403 Forbidden" in panel.get("/", host="evil.example:7007")
    for path in ("/../__init__.py", "/../../../_viser.py", "//etc/passwd", "/assets", "http://x/", "/a\0b"):
        answer = panel.get(path)
        assert b"import" not in answer and b"root:" not in answer
        assert b"404" in answer.splitlines()[0] or b"400" in answer.splitlines()[0], path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slider", 200_000),
        ("slider", -1),
        ("slider", math.nan),
        ("slider", "512"),
        ("slider", True),
        ("number", 1e30),
        ("number", [1.0]),
        ("free", math.inf),
        ("text", "x" * 100_000),
        ("text", "a\x1b]0;title\x07"),
        ("text", 3),
        ("name", "../../../escaped"),
        ("name", "/tmp/escaped"),
        ("name", "a`touch x`"),
        ("name", ""),
        ("folder", "exports; touch x"),
        ("choice", "/home/somebody/model"),
        ("choice", 0),
        ("group", "240"),
        ("check", "yes"),
        ("size", [200_000, 200_000]),
        ("size", [1920]),
        ("size", {"0": 1}),
        ("color", [0, 0, 999]),
        ("still", 5.0),
        ("hidden", True),
    ],
)
def test_values_that_no_element_allows_are_not_taken(
    panel: Panel, visitor: Visitor, name: str, value: Any
) -> None:
    before = panel.value(name)
    visitor.set(name, value)
    visitor.settle()
    assert panel.value(name) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slider", 1024),
        ("number", 7.5),
        ("free", -3),
        ("text", "Make him look older: grey hair, 20 % more wrinkles"),
        ("name", "2026-11-29 older (2)"),
        ("choice", "real"),
        ("check", True),
        ("size", [640, 480]),
        ("color", [255, 0, 9]),
        ("folder", "../exports/splat"),
    ],
)
def test_values_that_a_person_sets_are_taken(panel: Panel, visitor: Visitor, name: str, value: Any) -> None:
    visitor.set(name, value)
    wait_until(lambda: panel.value(name) == (tuple(value) if isinstance(value, list) else value))


def test_a_page_sets_values_and_nothing_else(panel: Panel, visitor: Visitor) -> None:
    visitor.set("still", 5.0, disabled=False)
    visitor.set("button", True, update_cb=[])
    visitor.settle()
    assert panel.elements["still"].disabled and panel.value("still") == 0.0
    assert len(panel.elements["button"]._impl.update_cb) == 1


@pytest.mark.parametrize(
    "message",
    [
        "text",
        b"\xff\xff",
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode({"type": "RunJavascriptMessage", "source": "x"}),
        msgspec.msgpack.encode({**CAMERA, "fov": "wide"}),
        msgspec.msgpack.encode({**CAMERA, "extra": 1}),
        msgspec.msgpack.encode({"type": "GuiUpdateMessage", "id": 3, "updates": {}}),
        b"\x91" * 5000,
    ],
)
def test_malformed_messages_end_the_client_that_sends_them_and_no_other(
    panel: Panel, visitor: Visitor, message: str | bytes
) -> None:
    hostile = Visitor(panel)
    wait_until(lambda: len(panel.server.get_clients()) == 2)
    hostile.socket.send(message)
    with pytest.raises(ConnectionClosed):
        while True:
            hostile.socket.recv(timeout=WITHIN)
    wait_until(lambda: len(panel.server.get_clients()) == 1)
    visitor.settle()


def test_a_camera_without_a_shape_is_passed_over(panel: Panel, visitor: Visitor) -> None:
    visitor.settle()
    for change in ({"aspect": 1e-9}, {"aspect": math.nan}, {"fov": 0.0}, {"wxyz": (0, 0, 0, 0)}):
        visitor.say(**{**CAMERA, **change})
    visitor.settle()
    (client,) = panel.server.get_clients().values()
    assert client.camera.aspect == 1.0 and client.camera.fov == 0.42


def test_files_are_taken_whole_or_not_at_all(panel: Panel, visitor: Visitor) -> None:
    source, content = panel.elements["upload"]._impl.id, b"0123456789"

    def send(name: str, uuid: str, size: int = 10, parts: int = 2) -> None:
        kind = {"source_component_id": source, "transfer_uuid": uuid}
        start = {"filename": name, "mime_type": "video/mp4", "part_count": parts, "size_bytes": size}
        visitor.say(type="FileTransferStart", **kind, **start)
        visitor.settle()
        for part in range(2):
            half = content[5 * part : 5 * part + 5]
            visitor.say(type="FileTransferPart", **kind, part=part, content=half)
            visitor.settle()

    for number, (name, size, parts) in enumerate(
        [("../x.mp4", 10, 2), ("a\0.mp4", 10, 2), ("x.mp4", 9, 2), ("x.mp4", 10**15, 2), ("x.mp4", 10, 0)]
    ):
        send(name, f"bad{number}", size, parts)
    for number in range(10):  # begun and never sent
        visitor.say(
            type="FileTransferStart", source_component_id=source, transfer_uuid=f"never{number}",
            filename="x.mp4", mime_type="", part_count=1, size_bytes=10,
        )  # fmt: skip
    visitor.settle()
    assert panel.uploaded == b"" and len(panel.server.gui._current_file_upload_states) <= 4
    send("talk.mp4", "good")
    wait_until(lambda: panel.uploaded == content)
