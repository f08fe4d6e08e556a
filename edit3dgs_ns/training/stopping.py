"""SIGTERM, by which clusters and `kill` end a training: the step that is being done is finished and saved."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from edit3dgs_ns.console import warn

EXIT_CODE = 128 + signal.SIGTERM
"""What a shell reports of a process that SIGTERM has ended."""


class StopRequest:
    """Whether the process was asked to end.

    ```
    stop = StopRequest("how to go on", is_idle)
    with stop.heeded():
        for step in range(steps):
            with stop.interrupts():
                edit()              # takes minutes, and is stored as it goes
            train(step)
            if stop.asked:
                save(step)
                stop.end()
    ```

    Args:
        advice: how to go on, for the message.
        is_idle: whether nothing is being done that has to be finished.
    """

    def __init__(self, advice: str, is_idle: Callable[[], bool]):
        self._advice, self._is_idle = advice, is_idle
        self._interrupts = False
        self.asked = False

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """SIGTERM is taken as a request meanwhile; outside of the main thread nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = signal.signal(signal.SIGTERM, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, former)

    @contextmanager
    def interrupts(self) -> Iterator[None]:
        """For what can be broken off at any place."""
        if self.asked:
            self.end()
        self._interrupts = True
        try:
            yield
        finally:
            self._interrupts = False

    def end(self) -> None:
        """Says it and ends the process."""
        warn(f"Stopped by SIGTERM. {self._advice}")
        sys.exit(EXIT_CODE)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self._interrupts or self._is_idle():
            self.end()
