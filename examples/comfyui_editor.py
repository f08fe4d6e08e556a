"""An editor of your own as a Python object: a graph of ComfyUI, on this machine or another.

    export COMFYUI_URL=http://127.0.0.1:8188        # where ComfyUI listens
    export COMFYUI_WORKFLOW=edit.json               # the graph, saved with "Export (API)"
    export COMFYUI_API_KEY=...                      # only where a service wants one; it is never written anywhere
    PYTHONPATH=examples ns-train edit3dgs --prompt "Make him look older" \\
        --pipeline.editor.model python:comfyui_editor:make_editor ...

In the graph, write %image% where the image's file name belongs (node LoadImage), %prompt% for the prompt and %seed% for the seed.
The first image that the graph saves is the edit. Each view is edited by itself; Edit3DGS makes their colours agree afterwards.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edit3dgs_ns.editing.editor import EditRequest, EditResult, Finished, Progress


class ComfyUIEditor:
    """An `Editor`: sends every view through a graph.

    Args:
        url: of the server.
        graph: in ComfyUI's API format, with %image%, %prompt% and %seed%.
        key: sent as a bearer token; empty for none.
        timeout: seconds that a view may take.
        poll: seconds between two questions whether it is done.
    """

    def __init__(
        self, url: str, graph: dict[str, Any], key: str = "", *, timeout: float = 600.0, poll: float = 0.5
    ):
        self._url, self._graph, self._key = url.rstrip("/"), graph, key
        self._timeout, self._poll = timeout, poll
        text = json.dumps(graph)
        for place in ("%image%", "%prompt%"):
            if place not in text:
                raise ValueError(
                    f"COMFYUI_WORKFLOW: the graph has no {place}: there is nothing to put it into."
                )

    @property
    def settings(self) -> dict[str, Any]:
        """The graph says what comes out; the address and the key do not."""
        digest = hashlib.sha256(json.dumps(self._graph, sort_keys=True).encode()).hexdigest()[:12]
        return {"editor": "comfyui", "workflow": digest}

    @property
    def views_depend(self) -> bool:
        """Each view is edited by itself."""
        return False

    def unknown_instruction(self, prompt: str) -> str | None:
        """Takes any prompt."""
        return None

    def edit(
        self, request: EditRequest, progress: Progress | None = None, finished: Finished | None = None
    ) -> EditResult:
        """See `Editor.edit`."""
        started, images = time.perf_counter(), []
        for view, original in enumerate(request.originals):
            image = self._edit_one(original, request.prompt, request.view_seed(view))
            images.append(image)
            if finished is not None:
                finished(view, image)
            if progress is not None:
                progress(view + 1, request.num_views)
        return EditResult(np.stack(images), self.settings, seconds=time.perf_counter() - started)

    def _edit_one(self, image: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        name = self._upload(image)
        graph = _filled(self._graph, {"%image%": name, "%prompt%": prompt, "%seed%": seed})
        answer = self._json("/prompt", json.dumps({"prompt": graph, "client_id": "edit3dgs"}).encode())
        file = self._wait(answer["prompt_id"])
        data = self._get(f"/view?{urllib.parse.urlencode(file)}")
        with Image.open(io.BytesIO(data)) as picture:
            # Graphs may round sizes to multiples of 8 or 64.
            sized = picture.convert("RGB").resize((image.shape[1], image.shape[0]), Image.Resampling.LANCZOS)
        return np.asarray(sized, np.float32) / 255

    def _upload(self, image: np.ndarray) -> str:
        buffer = io.BytesIO()
        Image.fromarray((image * 255).round().astype(np.uint8)).save(buffer, format="PNG")
        name, border = f"edit3dgs_{uuid.uuid4().hex}.png", uuid.uuid4().hex
        head = f'--{border}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
        body = head.encode() + buffer.getvalue() + f"\r\n--{border}--\r\n".encode()
        answer = self._json("/upload/image", body, f"multipart/form-data; boundary={border}")
        return str(answer["name"])

    def _wait(self, prompt_id: str) -> dict[str, str]:
        """The first image that the graph saved."""
        limit = time.monotonic() + self._timeout
        while time.monotonic() < limit:
            entry = json.loads(self._get(f"/history/{prompt_id}")).get(prompt_id)
            if entry is not None:
                files = [file for output in entry["outputs"].values() for file in output.get("images", [])]
                if files:
                    return {key: str(files[0].get(key, "")) for key in ("filename", "subfolder", "type")}
                raise RuntimeError(f"ComfyUI's graph ended without an image: {entry.get('status')}")
            time.sleep(self._poll)
        raise TimeoutError(f"ComfyUI took longer than {self._timeout:g} seconds for a view.")

    def _json(self, path: str, body: bytes, kind: str = "application/json") -> dict[str, Any]:
        return dict(json.loads(self._get(path, body, kind)))

    def _get(self, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        question = urllib.request.Request(self._url + path, body, headers)
        try:
            with urllib.request.urlopen(question, timeout=self._timeout) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:500]
            raise RuntimeError(
                f"{self._url}{path.partition('?')[0]}: {error.code} {error.reason}. {said}"
            ) from None


def _filled(part: Any, values: dict[str, Any]) -> Any:
    """A graph with its placeholders replaced; one that is a whole value keeps its type."""
    if isinstance(part, dict):
        return {key: _filled(value, values) for key, value in part.items()}
    if isinstance(part, list):
        return [_filled(value, values) for value in part]
    if isinstance(part, str):
        if part in values:
            return values[part]
        for place, value in values.items():
            part = part.replace(place, str(value))
    return part


def make_editor() -> ComfyUIEditor:
    """The editor that the environment describes."""
    missing = [name for name in ("COMFYUI_URL", "COMFYUI_WORKFLOW") if not os.environ.get(name)]
    if missing:
        raise ValueError(f"{' and '.join(missing)} not set: see {Path(__file__).name}.")
    graph = json.loads(Path(os.environ["COMFYUI_WORKFLOW"]).read_text(encoding="utf-8"))
    return ComfyUIEditor(os.environ["COMFYUI_URL"], graph, os.environ.get("COMFYUI_API_KEY", ""))
