"""An editor that is a program: it gets a folder with the views and a request, and leaves the edited images there.

    PROGRAM [its own arguments] FOLDER

    FOLDER/request.json             what is asked for (see `write_request`)
    FOLDER/images/000.png           the views as the avatar renders them now
    FOLDER/originals/000.png        the same views before any edit: what the edit is to be conditioned on
    FOLDER/keep/000.png             white where a view keeps its original; only where something is kept
    FOLDER/edited/000.png           what the program leaves: one image of the same size for every view

All images are RGB with 8 bits (masks: grey). The program ends with status 0 when all images are there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from edit3dgs_ns.capture.compositing import composite_over_white
from edit3dgs_ns.capture.images import ImageProblem, read_header, read_image
from edit3dgs_ns.editing.editor import EditRequest, EditResult, Finished, Progress
from edit3dgs_ns.editing.own.names import OPTION
from edit3dgs_ns.errors import MissingFileError, UserError

REQUEST_FILE = "request.json"
RESULTS = "edited"
VERSION = 1
"""Of the request's format."""
_LOOK_EVERY = 0.2
"""Seconds between two looks at what is there."""
_LAST_LINES = 15
_MOST_READ = 16 * 2**20
"""Bytes of a file up to which its content says whether the program has changed."""


class CommandEditor:
    """An `Editor`: runs a program for every request.

    Args:
        words: the program and its own arguments; the folder is appended.
        name: what to call it in records.
        timeout: seconds that a request may take.
    """

    def __init__(self, words: Sequence[str], *, name: str, timeout: float = 3600.0):
        if not timeout > 0:
            raise UserError(f"--pipeline.editor.timeout {timeout}: expected seconds, more than 0.")
        self._words, self._name, self._timeout = tuple(words), name, timeout

    @property
    def settings(self) -> dict[str, Any]:
        """Name, and a digest of the files among its words: a changed program may give other results."""
        return {"editor": "command", "model": self._name, "program": _digest(self._words)}

    @property
    def views_depend(self) -> bool:
        """Whether they do is the program's affair; a batch is requested as a whole, but may be split after a crash."""
        return False

    def unknown_instruction(self, prompt: str) -> str | None:
        """A program says what it does not know by ending with an error."""
        return None

    def edit(
        self, request: EditRequest, progress: Progress | None = None, finished: Finished | None = None
    ) -> EditResult:
        """Runs the program, and reads what it leaves.

        Raises:
            UserError: it took too long, ended with an error, or left no image or one of another size.
        """
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="edit3dgs_edit_") as name:
            folder = Path(name)
            write_request(folder, request)
            self._run(folder, request.num_views, progress)
            images = np.stack([self._read(folder, view, request) for view in range(request.num_views)])
        if finished is not None:
            for view, image in enumerate(images):
                finished(view, image)
        return EditResult(images, self.settings, seconds=time.perf_counter() - started)

    def _run(self, folder: Path, views: int, progress: Progress | None) -> None:
        log = folder / "log.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self._words, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = self._wait(process, folder / RESULTS, views, progress)
            finally:
                _end(process)
        if status is None:
            raise UserError(
                f"{self._said()} took longer than {self._timeout:g} seconds and was ended. Give it more with "
                f"--pipeline.editor.timeout.{_tail(log)}"
            )
        if status != 0:
            ended = f"signal {-status}" if status < 0 else f"status {status}"
            raise UserError(f"{self._said()} ended with {ended}.{_tail(log)}")

    def _wait(
        self, process: subprocess.Popen[bytes], results: Path, views: int, progress: Progress | None
    ) -> int | None:
        """Waits for the end; the status, or None if it takes too long. Images that are there count as progress."""
        limit, told = time.monotonic() + self._timeout, 0
        while True:
            try:
                return process.wait(min(_LOOK_EVERY, max(limit - time.monotonic(), 0.0)))
            except subprocess.TimeoutExpired:
                if time.monotonic() >= limit:
                    return None
            done = min(len(list(results.glob("*.png"))), views)
            if progress is not None and done > told:
                told = done
                progress(done, views)

    def _read(self, folder: Path, view: int, request: EditRequest) -> Float[np.ndarray, "height width 3"]:
        name, (height, width) = f"{RESULTS}/{_file(view)}", request.images.shape[1:3]
        path = folder / name
        if not path.is_file():
            raise MissingFileError(
                f"{self._said()} left no {name}: expected an image for each of {request.num_views} views."
            )
        try:
            found = read_header(path).size
            if found == (width, height):
                return _on_white(path)
        except ImageProblem as problem:
            raise UserError(f"{self._said()} left {name}, which {problem.what}.") from problem
        except OSError as error:  # its header is whole, its pixels are not
            raise UserError(f"{self._said()} left {name}, which cannot be read: {error}.") from error
        raise UserError(
            f"{self._said()} left {name} with {found[0]} x {found[1]} pixels; expected {width} x {height}."
        )

    def _said(self) -> str:
        return f"{OPTION} {self._name}: the program"


def write_request(folder: Path, request: EditRequest) -> None:
    """Writes a request as a program gets it."""
    for name, images in (("images", request.images), ("originals", request.originals)):
        (folder / name).mkdir()
        for view, image in enumerate(images):
            _save(folder / name / _file(view), image)
    if request.keep_mask is not None:
        (folder / "keep").mkdir()
        for view, mask in enumerate(request.keep_mask):
            _save(folder / "keep" / _file(view), mask)
    (folder / RESULTS).mkdir()
    text = json.dumps(_as_json(request), indent=1) + "\n"
    (folder / REQUEST_FILE).write_text(text, encoding="utf-8")


def _as_json(request: EditRequest) -> dict[str, Any]:
    """The request without its images; None where the program is to use its own value."""
    views = [
        {
            "id": request.view_ids[view],
            "timestep": request.timesteps[view],
            "seed": request.view_seed(view),
            "image": f"images/{_file(view)}",
            "original": f"originals/{_file(view)}",
            "keep": None if request.keep_mask is None else f"keep/{_file(view)}",
            "edited": f"{RESULTS}/{_file(view)}",
            "anchor": view in request.anchors,
            "camera_to_world": None if request.c2w is None else request.c2w[view].tolist(),
            "intrinsics": None if request.K is None else request.K[view].tolist(),
        }
        for view in range(request.num_views)
    ]
    names = ("prompt", "seed", "noise", "guidance_scale", "image_guidance_scale", "steps")
    height, width = request.images.shape[1:3]
    size = {"version": VERSION, "width": width, "height": height}
    return {**size, **{name: getattr(request, name) for name in names}, "views": views}


def _file(view: int) -> str:
    return f"{view:03d}.png"


def _save(path: Path, image: Float[np.ndarray, "height width *channels"]) -> None:
    Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)


def _on_white(path: Path) -> Float[np.ndarray, "height width 3"]:
    pixels, alpha = read_image(path)
    over_white = pixels if alpha is None else composite_over_white(pixels, alpha)
    return over_white.astype(np.float32) / 255


def _digest(words: Sequence[str]) -> str:
    """Of the files among the words; of weights, which take minutes to read, by size and date."""
    content = hashlib.sha256()
    for path in map(Path, words):
        if not path.is_file():
            continue
        about = path.stat()
        if about.st_size > _MOST_READ:
            content.update(f"{about.st_size} {about.st_mtime_ns}".encode())
        else:
            content.update(path.read_bytes())
    return content.hexdigest()[:12]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the program and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:  # Windows: the program alone
            process.kill()
    process.wait()


def _tail(log: Path) -> str:
    """The last lines that a program wrote, for a message."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
    return "\nIts last lines:\n" + "\n".join(f"  {line}" for line in lines) if lines else " It wrote nothing."
