"""The page is whole, asks for nothing, and never reads a user's words as HTML."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from edit3dgs_ns.web.page import FACE_MESH, packed_avatar, render_page

HOSTILE = '</title></h1><script>alert(1)</script> & "$avatar" ${x} <!-- \'é'


class Reader(HTMLParser):
    """What a browser finds in a page."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open:
            self.texts[self._open[-1]][-1] += data


@pytest.fixture(scope="module")
def page() -> Reader:
    return Reader(render_page(b"\0packed\xff", HOSTILE, HOSTILE))


def test_the_avatar_is_in_the_page() -> None:
    packed = bytes(range(256)) * 5
    assert packed_avatar(render_page(packed, "a", "b")) == packed
    with pytest.raises(ValueError, match="no page"):
        packed_avatar("<html></html>")


def test_words_are_words(page: Reader) -> None:
    assert page.texts["title"] == [HOSTILE] and page.texts["h1"] == [HOSTILE]
    assert HOSTILE in page.texts["p"]
    assert len(page.texts["script"]) == 4


def test_nothing_is_asked_of_a_network(page: Reader) -> None:
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "data:,") == "data:,"
    policy = _policy(page)
    assert policy["default-src"] == ["'none'"]
    addresses = [word for words in policy.values() for word in words if not word.startswith("'")]
    assert set(addresses) == {"blob:", "data:"}


def test_the_policy_names_the_scripts_that_are_there(page: Reader) -> None:
    policy = _policy(page)
    kinds = [attributes.get("type") for tag, attributes in page.elements if tag == "script"]
    run = [text for text, kind in zip(page.texts["script"], kinds, strict=True) if kind is None]
    assert len(run) == 1 and policy["script-src"] == [_hash(run[0]), "'wasm-unsafe-eval'", "blob:"]
    assert policy["style-src"] == [_hash(page.texts["style"][0])]
    assert not any("unsafe-inline" in words for words in policy.values())


def test_a_stream_is_the_only_address(page: Reader) -> None:
    assert "connect-src" not in _policy(page)
    live = Reader(render_page(b"packed", "a", "b", stream="ws://127.0.0.1:8765/face"))
    assert _policy(live)["connect-src"] == ["ws://127.0.0.1:8765/face"]


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1",
        "ws://a b",
        "ws://a; img-src *",
        'ws://a"><b>',
        "ws://",
        "*",
        "ws://[::1]:8765",
        "ws://a:70000",
    ],
)
def test_what_is_no_websocket_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="--stream"):
        render_page(b"packed", "a", "b", stream=address)


def test_a_webcam_asks_for_nothing_outside_of_the_page() -> None:
    page = render_page(b"packed", "a", "b", webcam=True)
    live = Reader(page)
    policy = _policy(live)
    assert policy["connect-src"] == ["blob:"] and policy["default-src"] == ["'none'"]
    held = [attributes["data-file"] for _, attributes in live.elements if "data-file" in attributes]
    assert held == list(FACE_MESH) and "The MediaPipe Authors" in page
    plain = _policy(Reader(render_page(b"packed", "a", "b")))
    assert "'unsafe-eval'" in policy["script-src"] and "'unsafe-eval'" not in plain["script-src"]


def test_the_viewers_licences_are_readable_in_the_page() -> None:
    page = render_page(b"packed", "a", "b")
    assert ("MIT License" in page and "three" in page and "Spark" in page) or "spark" in page


def _policy(page: Reader) -> dict[str, list[str]]:
    (content,) = (a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv"))
    return {words[0]: words[1:] for words in (re.split(r"\s+", part.strip()) for part in content.split(";"))}


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
