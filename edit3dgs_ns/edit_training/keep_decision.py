"""The decision of `--pipeline.editor.keep auto` in a run: made once, from the first round, and kept with its edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from nerfstudio.utils.rich_utils import CONSOLE

from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.judging.judge import Verdict
from edit3dgs_ns.editing.masks.keep_auto import AutoKeep
from edit3dgs_ns.editing.store import EditStore

_NOTE = "keep_auto"


class KeepDecision:
    """Decides once whether eyes and mouth are kept.

    Args:
        keep: what a run keeps; nothing is to be decided unless it is an `AutoKeep`.
        store: remembers the decision, so that a resumed run makes the same.
    """

    def __init__(self, keep: Any, store: EditStore):
        self._keep, self._store = keep if isinstance(keep, AutoKeep) else None, store
        if self._keep is not None and (note := store.note(_NOTE)) is not None:
            self._keep.kept = bool(note["kept"])

    @property
    def is_open(self) -> bool:
        """It is still to be made."""
        return self._keep is not None and self._keep.kept is None

    def settle(self, request: EditRequest, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Decides from edits in which nothing was kept, if these show eyes or mouth; returns them as they are to be stored."""
        good = [
            place
            for place, verdict in enumerate(verdicts)
            if verdict.fault is None and place not in request.anchors
        ]
        if not self.is_open or not good:
            return list(verdicts)
        assert self._keep is not None
        originals, ids = request.originals[good], [request.view_ids[place] for place in good]
        edits = np.stack([verdicts[place].image for place in good])
        pattern = self._keep.pattern(originals, edits, ids)
        if pattern is None:
            return list(verdicts)
        self._keep.kept = pattern.is_kept
        figures = {"slope": round(pattern.slope, 3), "correlation": round(pattern.correlation, 3)}
        self._store.take_note(_NOTE, {"kept": pattern.is_kept, **figures})
        said = (
            "leaves eyes and mouth alone: they are kept"
            if pattern.is_kept
            else "changes eyes and mouth: they are not kept"
        )
        CONSOLE.log(
            f"--pipeline.editor.keep auto: the edit {said} (pattern left: {pattern.slope:.2f}).",
            highlight=False,
        )
        result = list(verdicts)
        if pattern.is_kept:
            for place, image in zip(good, self._keep.put_back(originals, edits, ids), strict=True):
                result[place] = replace(verdicts[place], image=image)
        return result

    def record(self) -> dict[str, Any] | None:
        """What was decided, and from what; None where nothing was."""
        return None if self._keep is None else self._store.note(_NOTE)
