"""Editor wrapper for several threads: rounds that are in flight together, and a viewer that makes a preview meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from edit3dgs_ns.editing.editor import Editor, EditRequest, EditResult, Finished, Progress, requests_at_once


class ThreadSafeEditor:
    """An `Editor` that edits as many requests at a time as the one it wraps, in the threads that ask, and reports progress to a
    watcher. PyTorch computes with as many threads as when the editor was wrapped.

    Args:
        editor: does the work.
    """

    def __init__(self, editor: Editor):
        self.inner = editor
        """The editor itself."""
        self.requests_at_once = requests_at_once(editor)
        """See `editor.requests_at_once`."""
        self._threads = torch.get_num_threads()
        self._free = threading.Semaphore(self.requests_at_once)
        self.watcher: Progress | None = None
        """Called with the progress of every request, after the caller's own `progress`."""

    @property
    def settings(self) -> dict[str, Any]:
        """See `Editor`."""
        return self.inner.settings

    @property
    def views_depend(self) -> bool:
        """See `Editor`."""
        return self.inner.views_depend

    def unknown_instruction(self, prompt: str) -> str | None:
        """See `Editor`."""
        return self.inner.unknown_instruction(prompt)

    def edit(
        self, request: EditRequest, progress: Progress | None = None, finished: Finished | None = None
    ) -> EditResult:
        """See `Editor`; waits until fewer than `requests_at_once` other threads edit."""

        def both(done: int, total: int) -> None:
            for tell in (progress, self.watcher):
                if tell is not None:
                    tell(done, total)

        with self._free, computing_with(self._threads):
            return self.inner.edit(request, both, finished)


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Context in which PyTorch computes with this number of threads, on which the last bits of sums depend.

    OpenMP keeps the number for each thread that asks, and Numba's kernels change it on the way: without this an edit made after a
    render in the same thread differs from one made in a thread of its own.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
