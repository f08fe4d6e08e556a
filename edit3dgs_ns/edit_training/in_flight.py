"""Tasks that run in threads of their own, a few at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait


class Stopped(Exception):
    """Raised in a task, by `InFlight.check`, once nobody waits for it any more."""


class InFlight:
    """Runs tasks, and ends early where one fails.

    An exception of a task lets those that run come to their end, for their results may be stored, and begins no other. Whatever
    stops the thread that waits (Ctrl-C) stops the tasks too, where they call `check`.

    Args:
        at_once: tasks that run at the same time.
    """

    def __init__(self, at_once: int):
        self._at_once = at_once
        self._stopped = threading.Event()

    def check(self) -> None:
        """Ends the task that calls this, if the thread that waits for it was stopped.

        Raises:
            Stopped: it was.
        """
        if self._stopped.is_set():
            raise Stopped

    def run(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Returns once all tasks have; raises what the first one that failed has raised. One task runs in the caller's thread."""
        if len(tasks) == 1:
            tasks[0]()
            return
        failure = threading.Event()

        def unless_failed(task: Callable[[], None]) -> None:
            if failure.is_set():
                return
            try:
                task()
            except BaseException:
                failure.set()
                raise

        with ThreadPoolExecutor(max(1, self._at_once), thread_name_prefix="edit") as threads:
            futures = [threads.submit(unless_failed, task) for task in tasks]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                failed = [future for future in futures if future in done and future.exception() is not None]
            except BaseException:
                self._stopped.set()
                raise
            finally:
                for future in futures:
                    future.cancel()
        if failed:
            failed[0].result()
