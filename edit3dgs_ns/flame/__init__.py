"""The parametric head: FLAME, or the embedded open head with FLAME's joints; its layer, its motions and their files.

Imports NumPy, SciPy, torch and roma only.
"""

from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel, FlamePose, ShapedHead
from edit3dgs_ns.flame.motion import FlameMotion

__all__ = ["FlameAssets", "FlameModel", "FlameMotion", "FlamePose", "ShapedHead", "load_assets"]
