"""The parametric head: FLAME, or the embedded open head with FLAME's joints; its layer, its motions and their files.

Imports NumPy, SciPy, torch and roma only, and these when one of its names is used: commands ask `known_motions` without them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edit3dgs_ns.flame.assets import FlameAssets
    from edit3dgs_ns.flame.loading import load_assets
    from edit3dgs_ns.flame.model import FlameModel, FlamePose, ShapedHead
    from edit3dgs_ns.flame.motion import FlameMotion

__all__ = ["FlameAssets", "FlameModel", "FlameMotion", "FlamePose", "ShapedHead", "load_assets"]
_MODULES = {
    "FlameAssets": "assets",
    "load_assets": "loading",
    "FlameModel": "model",
    "FlamePose": "model",
    "ShapedHead": "model",
    "FlameMotion": "motion",
}


def __getattr__(name: str) -> Any:
    """A name of the package, from the module that defines it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
