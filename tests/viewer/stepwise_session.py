"""An edit that a test lets through step by step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_WITHIN = 30
"""Seconds, after which the test has failed."""


class StepwiseSession:
    """An edit of some steps, each of which waits to be let through; `end` says how it ended, each time that it did."""

    def __init__(self, steps: int = 3):
        self.steps, self.done, self.end = steps, 0, ""
        self.let = threading.Semaphore(0)

    @property
    def finished(self) -> bool:
        return self.done >= self.steps

    def advance(self) -> None:
        assert self.let.acquire(timeout=_WITHIN)
        self.done += 1

    def keep(self) -> None:
        self.end += "kept"

    def abandon(self) -> None:
        self.end += "abandoned"


def until(condition: Callable[[], bool]) -> None:
    """Waits for it."""
    end = time.monotonic() + _WITHIN
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
