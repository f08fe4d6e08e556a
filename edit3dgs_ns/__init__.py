"""Edit animatable 3D Gaussian head avatars with prompts. The Python API is loaded when one of its names is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edit3dgs_ns.api import Avatar, Camera, Editor, EditResult, Motion, load_editor

__all__ = ["Avatar", "Camera", "EditResult", "Editor", "Motion", "load_editor"]


def __getattr__(name: str) -> Any:
    """A name of the API; importing it here would load PyTorch for `edit3dgs --help` too."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edit3dgs_ns import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
