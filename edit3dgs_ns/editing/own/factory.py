"""An editor that is a Python object: made by a factory that a name says."""

from __future__ import annotations

import importlib
from typing import Any, cast

from edit3dgs_ns.editing.editor import Editor
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
        factory = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UserError(
            f"{OPTION} {own.name}: {module} cannot be imported ({type(error).__name__}: {error}). Is its folder in PYTHONPATH?"
        ) from error
    except AttributeError:
        raise UserError(f"{OPTION} {own.name}: the module {module} has no {name}.") from None
    editor: Any = factory()
    missing = [part for part in _PROTOCOL if not hasattr(editor, part)]
    if missing:
        raise UserError(
            f"{OPTION} {own.name}: what {name}() returns, a {type(editor).__name__}, is no Editor: it lacks {', '.join(missing)}. "
            "See edit3dgs_ns.Editor."
        )
    if not isinstance(editor.settings, dict):
        raise UserError(
            f"{OPTION} {own.name}: the editor's settings are {editor.settings!r}; expected a dict of JSON values."
        )
    return cast(Editor, editor)
