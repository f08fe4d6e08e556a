"""An editor that is a Python object: made by a factory that a name says."""

from __future__ import annotations

import importlib
import json
from typing import Any

from edit3dgs_ns.editing.editor import Editor, EditRequest, EditResult, Finished, Progress
from edit3dgs_ns.editing.own.names import OPTION, OwnEditor
from edit3dgs_ns.errors import UserError

_PROTOCOL = ("settings", "views_depend", "unknown_instruction", "edit")


def make_editor(own: OwnEditor) -> Editor:
    """Imports the module, calls the factory, and checks what it returns.

    Raises:
        UserError: there is no such module or factory, or what it returns does not follow `Editor`.
    """
    module, name = own.words
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # whatever the user's own code raises
        raise UserError(
            f"{OPTION} {own.name}: {module} cannot be imported ({type(error).__name__}: {error}). Is its folder in PYTHONPATH?"
        ) from error
    factory = getattr(imported, name, None)
    if not callable(factory):
        found = "no" if factory is None else "no function or class"
        raise UserError(f"{OPTION} {own.name}: the module {module} has {found} {name}.")
    try:
        editor: Any = factory()
    except Exception as error:
        raise UserError(f"{OPTION} {own.name}: {name}() raised {type(error).__name__}: {error}") from error
    missing = [part for part in _PROTOCOL if not hasattr(editor, part)]
    if missing:
        raise UserError(
            f"{OPTION} {own.name}: what {name}() returns, a {type(editor).__name__}, is no Editor: it lacks {', '.join(missing)}. "
            "See edit3dgs_ns.Editor."
        )
    if not _is_json(editor.settings):
        raise UserError(
            f"{OPTION} {own.name}: the editor's settings are {editor.settings!r}; expected a dict of JSON values."
        )
    return CheckedEditor(editor, own.name)


def _is_json(settings: Any) -> bool:
    """Whether these can be written into a run's history, which happens when the first edits are paid for."""
    try:
        return isinstance(settings, dict) and bool(json.dumps(settings, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return False


class CheckedEditor:
    """An `Editor` whose results are checked.

    Args:
        editor: edits.
        name: what to call it in messages.
    """

    def __init__(self, editor: Editor, name: str):
        self.inner, self._name = editor, name
        """The editor itself."""

    @property
    def settings(self) -> dict[str, Any]:
        """See `Editor`."""
        return self.inner.settings

    @property
    def views_depend(self) -> bool:
        """See `Editor`."""
        return bool(self.inner.views_depend)

    def unknown_instruction(self, prompt: str) -> str | None:
        """See `Editor`."""
        return self.inner.unknown_instruction(prompt)

    def edit(
        self, request: EditRequest, progress: Progress | None = None, finished: Finished | None = None
    ) -> EditResult:
        """See `Editor`.

        Raises:
            UserError: it returns something else than an `EditResult` with an image for each view, of its size.
        """
        result: Any = self.inner.edit(request, progress, finished)
        if not isinstance(result, EditResult):
            raise UserError(
                f"{OPTION} {self._name}: edit() returned {type(result).__name__}; expected an "
                "edit3dgs_ns.editing.editor.EditResult."
            )
        if result.images.shape != request.images.shape:
            raise UserError(
                f"{OPTION} {self._name}: edit() returned images of shape {result.images.shape}; expected {request.images.shape}, "
                "an image for each view of the request, of its size."
            )
        return result
