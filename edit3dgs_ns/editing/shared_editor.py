"""An editor that several may use, one after the other: a training run and a viewer that makes a preview meanwhile."""

from __future__ import annotations

import threading
from typing import Any

from edit3dgs_ns.editing.editor import Editor, EditRequest, EditResult, Finished, Progress


class SharedEditor:
    """An `Editor` that edits one batch at a time, whichever threads ask, and lets somebody watch.

    Args:
        editor: does the work.
    """

    def __init__(self, editor: Editor):
        self._editor = editor
        self._one_at_a_time = threading.Lock()
        self.watcher: Progress | None = None
        """Told of the progress of every batch, besides the one who asked."""

    @property
    def settings(self) -> dict[str, Any]:
        """See `Editor`."""
        return self._editor.settings

    @property
    def views_depend(self) -> bool:
        """See `Editor`."""
        return self._editor.views_depend

    def unknown_instruction(self, prompt: str) -> str | None:
        """See `Editor`."""
        return self._editor.unknown_instruction(prompt)

    def edit(
        self, request: EditRequest, progress: Progress | None = None, finished: Finished | None = None
    ) -> EditResult:
        """See `Editor`; waits for whoever edits now."""

        def both(done: int, total: int) -> None:
            for tell in (progress, self.watcher):
                if tell is not None:
                    tell(done, total)

        with self._one_at_a_time:
            return self._editor.edit(request, both, finished)
