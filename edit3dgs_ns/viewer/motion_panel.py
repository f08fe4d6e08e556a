"""The folder Motion in the viewer's tab Move: whose motion is played; files and videos are read, and tracked, by a thread."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import viser

from edit3dgs_ns.files import write_atomically
from edit3dgs_ns.viewer.motions import Motions
from edit3dgs_ns.viewer.text import wrapped

UPLOADS = "videos"
"""Folder in the avatar's run for videos that were sent by a browser; what they are tracked into lies beside them."""
_UPDATE_SECONDS = 0.2


class _Cancelled(Exception):
    """Another motion was chosen meanwhile."""


class MotionPanel:
    """Adds its elements to the container that is open. The page stays responsive: reading happens in a thread, one at a time.

    Args:
        server: of viser.
        motions: the choices.
        run: the avatar's run, where uploaded videos are kept.
        show: plays a motion of this name.
    """

    def __init__(self, server: viser.ViserServer, motions: Motions, run: Path, show: Callable[[str], None]):
        self._motions, self._run, self._show = motions, run, show
        self._lock = threading.Lock()
        self._reading: threading.Thread | None = None
        self._updated = 0.0
        gui = server.gui
        with gui.add_folder("Motion"):
            self._choice = gui.add_dropdown("Motion", motions.names(), hint="Whose expressions move the head")
            self._path = gui.add_text(
                "From",
                "",
                hint="A video (.mp4, ...), another capture, a flame_param.npz, recorded ARKit coefficients, ...",
            )
            load = gui.add_button("Add this motion", icon=viser.Icon.FILE_IMPORT)
            video = gui.add_upload_button(
                "Choose a video",
                icon=viser.Icon.VIDEO,
                mime_type="video/*",
                hint="Of one person; it is tracked on this computer and goes nowhere else",
            )
            self._cancel = gui.add_button("Cancel", icon=viser.Icon.X, visible=False)
            self._bar = gui.add_progress_bar(0.0, visible=False)
            self._message = gui.add_markdown("", visible=False)
        self._choice.on_update(lambda event: self._chosen(by_hand=event.client is not None))
        load.on_click(lambda _: self.start(self._path.value))
        video.on_upload(lambda _: self.upload(video.value.name, video.value.content))
        self._cancel.on_click(lambda _: self.cancel())

    def start(self, source: str) -> None:
        """Begin to read a motion, and play it once it is read; what is being read now is given up. Returns at once."""
        with self._lock:
            former = self._reading
            thread = threading.Thread(
                target=self._read, args=(source, former), name="reading-motion", daemon=True
            )
            self._reading = thread
        self._say("Reading ...", 0.0)
        thread.start()

    def upload(self, name: str, content: bytes) -> None:
        """Keep a video that a browser has sent, and start with it."""
        path = self._run / UPLOADS / Path(name.replace("\\", "/")).name
        try:
            # A video that is there already stays as it is: it may be tracked.
            if not (path.is_file() and path.read_bytes() == content):
                write_atomically(path, content)
        except (OSError, ValueError) as error:
            self._say(str(error))
            return
        self.start(str(path))

    def cancel(self) -> None:
        """Give up what is being read."""
        with self._lock:
            self._reading = None
        self._say("Cancelled.")

    def wait(self, timeout: float) -> bool:
        """Wait until nothing is being read. Returns False after `timeout` seconds."""
        end = time.monotonic() + timeout
        while self._reading is not None and time.monotonic() < end:
            time.sleep(0.02)
        return self._reading is None

    def _chosen(self, by_hand: bool) -> None:
        if by_hand:
            if self._reading is not None:
                self.cancel()
            else:
                self._say(self._notes(self._choice.value))
        self._show(self._choice.value)

    def _notes(self, name: str) -> str:
        return ". ".join(self._motions.notes(name))

    # -- the thread --------------------------------------------------------------------------------------------------

    def _read(self, source: str, former: threading.Thread | None) -> None:
        if former is not None:
            former.join()  # two must not write one folder
        try:
            self._check_current()
            name = self._motions.add(source, self._progress)
        except _Cancelled:
            return
        except (ValueError, OSError) as error:
            # There are no flags in a window, and of a video that was sent its name is known, not its place.
            self._end(str(error).removeprefix("--motion ").replace(f"{self._run / UPLOADS}/", ""))
        except Exception as error:
            # The window goes on; the user sees what went wrong there, and a developer here.
            traceback.print_exc()
            self._end(f"{type(error).__name__}: {error}")
        else:
            self._end(self._notes(name), name)

    def _check_current(self) -> None:
        if self._reading is not threading.current_thread():
            raise _Cancelled

    def _progress(self, what: str, done: int, total: int) -> None:
        self._check_current()
        now = time.monotonic()
        if now - self._updated > _UPDATE_SECONDS or done in (0, total):
            self._updated = now
            self._say(f"{what} ...", done / total if total else 0.0)

    def _end(self, message: str, name: str | None = None) -> None:
        with self._lock:
            if self._reading is not threading.current_thread():
                return
            self._say(message)
            if name is not None:
                self._choice.options = self._motions.names()
                self._choice.value = name
            self._reading = None

    def _say(self, message: str, share: float | None = None) -> None:
        """Show a message, and a bar at `share` in [0, 1] while something is read."""
        self._message.content, self._message.visible = wrapped(message), bool(message)
        handles: tuple[Any, ...] = (self._bar, self._cancel)
        for handle in handles:
            handle.visible = share is not None
        self._bar.value = 100 * min(max(share or 0.0, 0.0), 1.0)
