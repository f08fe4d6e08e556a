"""The example editors: a program, and a client of a ComfyUI server (a small one of our own here)."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from PIL import Image

from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.editors import load_named_editor
from edit3dgs_ns.errors import UserError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def request(**options) -> EditRequest:
    """Two views: a grey square on white."""
    images = np.ones((2, 24, 32, 3), np.float32)
    images[:, 6:18, 8:24] = np.linspace(0.4, 0.8, 16, dtype=np.float32)[None, None, :, None]
    return EditRequest(prompt="Paint him blue", images=images, originals=images, seed=3, **options)


def test_the_program_paints_what_the_prompt_says():
    editor = load_named_editor(f"command:{sys.executable} {EXAMPLES / 'command_editor.py'}")
    images = editor.edit(request()).images
    inside, outside = images[:, 6:18, 8:24], images[:, :5]
    assert (inside[..., 2] > 1.5 * inside[..., 0]).all() and (outside == 1).all()


def test_the_program_says_why_it_cannot():
    from dataclasses import replace

    editor = load_named_editor(f"command:{sys.executable} {EXAMPLES / 'command_editor.py'}")
    with pytest.raises(
        UserError, match=r"(?s)ended with status 1.*no colour in the prompt 'Make him look older'"
    ):
        editor.edit(replace(request(), prompt="Make him look older"))


class ComfyUI(BaseHTTPRequestHandler):
    """What ComfyUI does with a graph of LoadImage and SaveImage: here the colours are inverted."""

    uploads: dict[str, bytes] = {}  # noqa: RUF012
    graphs: list[dict] = []  # noqa: RUF012
    asked: dict[str, int] = {}  # noqa: RUF012
    keys: set[str | None] = set()  # noqa: RUF012

    def log_message(self, *args):
        """Quiet."""

    def answer(self, content: bytes, status: int = 200) -> None:
        self.keys.add(self.headers.get("Authorization"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/upload/image":
            name = re.search(rb'filename="([^"]+)"', body)[1].decode()
            start = body.index(b"\r\n\r\n") + 4
            self.uploads[name] = body[start : body.rindex(b"\r\n--")]
            return self.answer(json.dumps({"name": name, "subfolder": "", "type": "input"}).encode())
        graph = json.loads(body)["prompt"]
        if graph["2"]["inputs"]["text"] == "Make an error":
            return self.answer(b'{"error": "node 2 is wrong"}', 400)
        self.graphs.append(graph)
        return self.answer(json.dumps({"prompt_id": str(len(self.graphs) - 1)}).encode())

    def do_GET(self):
        url = urlparse(self.path)
        if url.path == "/view":
            (name,) = parse_qs(url.query)["filename"]
            image = Image.open(io.BytesIO(self.uploads[name.removeprefix("out_")]))
            buffer = io.BytesIO()
            Image.fromarray(255 - np.asarray(image)).save(buffer, format="PNG")
            return self.answer(buffer.getvalue())
        number = url.path.rpartition("/")[2]
        self.asked[number] = self.asked.get(number, 0) + 1
        if self.asked[number] < 2:
            return self.answer(b"{}")
        name = f"out_{self.graphs[int(number)]['1']['inputs']['image']}"
        file = {"filename": name, "subfolder": "", "type": "output"}
        return self.answer(json.dumps({number: {"outputs": {"9": {"images": [file]}}}}).encode())


@pytest.fixture
def comfyui(monkeypatch, tmp_path):
    """A server, and the environment that points to it."""
    for known in (ComfyUI.uploads, ComfyUI.graphs, ComfyUI.asked, ComfyUI.keys):
        known.clear()
    server = HTTPServer(("127.0.0.1", 0), ComfyUI)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "%image%"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "%prompt%"}},
        "3": {
            "class_type": "KSampler",
            "inputs": {"seed": "%seed%", "title": "seed %seed%", "model": ["1", 0]},
        },
    }
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    monkeypatch.setenv("COMFYUI_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("COMFYUI_WORKFLOW", str(tmp_path / "graph.json"))
    monkeypatch.setenv("COMFYUI_API_KEY", "a secret")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    server.shutdown()
    server.server_close()


def test_every_view_goes_through_the_graph(comfyui):
    editor = load_named_editor("python:comfyui_editor:make_editor")
    editor.inner._poll = 0.01
    told, given = [], []
    asked = request(view_ids=(5, 9), shared_noise=False)
    result = editor.edit(asked, lambda *done: told.append(done), lambda view, image: given.append(view))
    np.testing.assert_allclose(result.images, 1 - np.round(asked.originals * 255) / 255, atol=1e-6)
    assert told == [(1, 2), (2, 2)] and given == [0, 1]
    sampler = [graph["3"]["inputs"] for graph in ComfyUI.graphs]
    assert [inputs["seed"] for inputs in sampler] == [8, 12] and sampler[0]["title"] == "seed 8"
    assert ComfyUI.graphs[0]["2"]["inputs"]["text"] == "Paint him blue"
    assert ComfyUI.keys == {"Bearer a secret"} and "secret" not in json.dumps(editor.settings)


def test_what_the_server_says_is_passed_on(comfyui):
    from dataclasses import replace

    editor = load_named_editor("python:comfyui_editor:make_editor")
    with pytest.raises(RuntimeError, match=r"/prompt: 400 .*node 2 is wrong"):
        editor.edit(replace(request(), prompt="Make an error"))


def test_a_missing_address_is_named(comfyui, monkeypatch):
    monkeypatch.delenv("COMFYUI_URL")
    with pytest.raises(ValueError, match="COMFYUI_URL not set"):
        load_named_editor("python:comfyui_editor:make_editor")
