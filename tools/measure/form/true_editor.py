"""An editor that knows the truth: it returns the ray-traced images of the edited person, whatever the prompt says.

Named as `--pipeline.editor.model python:tools.measure.form.true_editor:make`; FORM_TRUE_EDIT says which edit of which capture.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from edit3dgs_ns.editing.editor import EditRequest, EditResult
from edit3dgs_ns.synthetic.replay import render_edited

VARIABLE = "FORM_TRUE_EDIT"
"""KEY@DATA: a key of TRUE_EDITS, and the combined data set of a capture that `edit3dgs capture` wrote."""


class TrueEditor:
    """Returns true edited images of a synthetic capture.

    Args:
        edit: a key of TRUE_EDITS.
        data: the folder that is trained on; views are numbered as its training frames.
    """

    views_depend = False

    def __init__(self, edit: str, data: Path):
        frames = json.loads((data / "transforms_train.json").read_text(encoding="utf-8"))["frames"]
        self._images = [data / frame["file_path"] for frame in frames]
        self._edit = edit
        self._rendered: dict[int, np.ndarray] = {}
        self.settings: dict[str, Any] = {"editor": "true", "edit": edit}

    def unknown_instruction(self, prompt: str) -> None:
        """Knows every prompt."""

    def edit(self, request: EditRequest, progress: Any = None, finished: Any = None) -> EditResult:
        """The true images of the request's views."""
        return EditResult(np.stack([self._true(view) for view in request.view_ids]))

    def _true(self, view: int) -> np.ndarray:
        if view not in self._rendered:
            image = render_edited(self._images[view], self._edit)
            self._rendered[view] = (image * 255).round().astype(np.uint8)
        return self._rendered[view].astype(np.float32) / 255


def make() -> TrueEditor:
    """The factory."""
    edit, _, data = os.environ[VARIABLE].partition("@")
    return TrueEditor(edit, Path(data))
