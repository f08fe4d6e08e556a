"""Any editor by its name: a diffusion model, a program, or a Python object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edit3dgs_ns.editing.diffusion.families import no_references
from edit3dgs_ns.editing.editor import Editor
from edit3dgs_ns.editing.own.names import OwnEditor, own_editor

TIMEOUT = 3600.0
"""Seconds that a program may take for a request."""


def check_editor_name(
    model: str | Path, references: Sequence[Path] = (), ip_adapter: Path | None = None
) -> None:
    """Checks all that can be known of an editor without weights or network, and without importing or running anything.

    Args:
        model: its name; see `load_named_editor`.
        references: images that the prompt may speak of.
        ip_adapter: weights of an IP-Adapter for InstructPix2Pix.

    Raises:
        FileNotFoundError, ValueError: it cannot be what is meant; the message says what was found and what to do.
    """
    own = own_editor(model)
    if own is None:
        from edit3dgs_ns.editing.diffusion.model_folder import check_model

        check_model(model, references, ip_adapter)
    elif references or ip_adapter is not None:
        raise no_references(own.name, "an editor of your own")


def load_named_editor(model: str | Path, *, timeout: float = TIMEOUT, **options: Any) -> Editor:
    """The editor of a name.

    Args:
        model: `command:PROGRAM`, `python:package.module:factory`, or whatever `diffusion.loading.load_editor` takes.
        timeout: seconds that a program may take for a request.
        options: of `diffusion.loading.load_editor`. Of an editor of one's own only `sharing` counts: whether its views are made to
            agree afterwards.
    """
    own = own_editor(model)
    if own is None:
        from edit3dgs_ns.editing.diffusion.loading import load_editor

        return load_editor(model, **options)
    editor = _own(own, timeout)
    sharing = options.get("sharing")
    if sharing is None or sharing.correspondence == "none" or editor.views_depend:
        return editor
    from edit3dgs_ns.editing.own.agree_after import AgreeingEditor

    return AgreeingEditor(editor)


def _own(own: OwnEditor, timeout: float) -> Editor:
    if own.kind == "command":
        from edit3dgs_ns.editing.own.command import CommandEditor

        return CommandEditor(own.words, name=own.name, timeout=timeout)
    from edit3dgs_ns.editing.own.factory import make_editor

    return make_editor(own)
