"""Editor wrapper for several threads: a training run, and a viewer that makes a preview meanwhile."""

from __future__ import annotations

import threading
from typing import Any

from edit3dgs_ns.editing.editor import Editor, EditRequest, EditResult, Finished, Progress


class ThreadSafeEditor:
    """An `Editor` that edits one request at a time, in the thread that asks, and reports progress to a watcher.

    Args:
        editor: does the work.
    """

    def __init__(self, editor: Editor):
        self.inner = editor
        """The editor itself."""
        self._one_at_a_time = threading.Lock()
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
        """See `Editor`; waits until no other thread edits."""

        def both(done: int, total: int) -> None:
            for tell in (progress, self.watcher):
                if tell is not None:
                    tell(done, total)

        with self._one_at_a_time:
            return self.inner.edit(request, both, finished)
