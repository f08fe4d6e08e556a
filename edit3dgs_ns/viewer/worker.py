"""The thread that previews, edits and reverts, and the states in which each of these may be requested.

    idle -- preview --> previewing --> idle
    idle -- edit --> editing <-- pause, resume --> paused;  done --> idle
    idle, editing, paused -- undo --> reverting --> idle           (while it edits, undo abandons the edit)

A request only sets a flag or fills a queue of one: no caller ever waits.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

State = Literal["idle", "previewing", "editing", "paused", "reverting"]

_POLL_SECONDS = 0.1
"""Between two checks of the flags while paused."""


class Session(Protocol):
    """An edit, step by step; see `EditSession`."""

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        ...

    def advance(self) -> None:
        """Does one step."""
        ...

    def keep(self) -> Any:
        """Keeps the edited avatar as a new version."""
        ...

    def abandon(self) -> None:
        """Restores the avatar from before the edit."""
        ...


@dataclass(frozen=True)
class Status:
    """State of the worker, with a message for the user."""

    state: State
    message: str = ""
    """What was done, or what went wrong."""
    failed: bool = False
    session: Any = None
    """The edit, while editing."""


class Worker:
    """One job at a time, in a thread of its own.

    Args:
        report: told of every change, and of every step of an edit; called by the thread.
        give_way: called between two steps of an edit; may wait a little, so that others get the train lock.
    """

    def __init__(self, report: Callable[[Status], None], give_way: Callable[[], None] = lambda: None):
        self._report, self._give_way = report, give_way
        self._changed = threading.Condition()
        self._status = Status("idle")
        self._next: Callable[[], None] | None = None
        self._pause = self._give_up = False
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> Status:
        """The current status."""
        return self._status

    # -- requests -----------------------------------------------------------------------------------------------------

    def preview(self, make: Callable[[], str]) -> bool:
        """Requests a preview; `make` shows it and returns a message. Returns False if the worker is busy."""
        return self._begin("previewing", lambda: self._once(make))

    def edit(self, begin: Callable[[], Session]) -> bool:
        """Requests an edit from beginning to end. Returns False if the worker is busy."""
        return self._begin("editing", lambda: self._do_edit(begin))

    def revert(self, do: Callable[[], str]) -> bool:
        """Requests another version; `do` shows it and returns a message. While an edit goes on, that is abandoned instead.

        Returns False if the worker is busy.
        """
        with self._changed:
            if self._status.state in ("editing", "paused"):
                self._give_up = True
                self._changed.notify_all()
                return True
        return self._begin("reverting", lambda: self._once(do))

    def pause(self, pause: bool) -> bool:
        """Pauses after the current step, or resumes. Returns False if nothing is being edited."""
        with self._changed:
            if self._status.state not in ("editing", "paused"):
                return False
            self._pause = pause
            self._changed.notify_all()
            return True

    def wait(self, timeout: float) -> bool:
        """Waits until the worker is idle. Returns False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._next is None and self._status.state == "idle", timeout
            )

    # -- the thread --------------------------------------------------------------------------------------------------

    def _begin(self, state: State, work: Callable[[], None]) -> bool:
        with self._changed:
            if self._status.state != "idle" or self._next is not None:
                return False
            self._pause = self._give_up = False
            self._next, self._status = work, Status(state)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="avatar-editing", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None)
                work = self._next
            assert work is not None
            self._report(self._status)
            try:
                work()
            except Exception as error:
                # The window goes on; the user sees what went wrong there, and a developer here.
                traceback.print_exc()
                kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
                self._finish(Status("idle", f"{kind}{error}", failed=True))

    def _once(self, do: Callable[[], str]) -> None:
        self._finish(Status("idle", do()))

    def _do_edit(self, begin: Callable[[], Session]) -> None:
        session = begin()
        try:
            while not session.finished and not self._give_up:
                if self._pause:
                    self._tell(Status("paused", session=session))
                    self._wait_while_paused()
                    continue
                self._tell(Status("editing", session=session))
                session.advance()
                self._give_way()
        except BaseException:
            session.abandon()
            raise
        if self._give_up:
            session.abandon()
            self._finish(Status("idle", "The edit was given up: the avatar is as it was."))
        else:
            session.keep()
            self._finish(Status("idle", "The edit is done."))

    def _wait_while_paused(self) -> None:
        with self._changed:
            while self._pause and not self._give_up:
                self._changed.wait(_POLL_SECONDS)

    def _tell(self, status: Status) -> None:
        with self._changed:
            self._status = status
        self._report(status)

    def _finish(self, status: Status) -> None:
        with self._changed:
            self._status, self._next = status, None
        self._report(status)
        with self._changed:
            self._changed.notify_all()
