"""A synthetic multi-view capture of the open head, and true before-and-after pictures of edits.

Names are imported when they are first used: importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "Appearance": "appearance",
    "Light": "appearance",
    "Camera": "cameras",
    "arc_cameras": "cameras",
    "LABELS": "canonical",
    "EDITS": "edits",
    "Edit": "edits",
    "OPEN_EDITS": "edits",
    "OpenEdit": "edits",
    "Identity": "identity",
    "random_identity": "identity",
    "random_camera": "sampling",
    "random_frame": "sampling",
    "random_light": "sampling",
    "random_scene": "sampling",
    "Frame": "scene",
    "Hits": "scene",
    "Render": "scene",
    "Scene": "scene",
    "CaptureSettings": "settings",
    "write_capture": "writer",
    "Replay": "replay",
    "render_edited": "replay",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
