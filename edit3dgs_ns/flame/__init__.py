"""What moves: the parametric head (torch and NumPy only)."""

from edit3dgs_ns.flame.assets import FlameAssets, load_assets
from edit3dgs_ns.flame.model import FlameModel, FlamePose, ShapedHead
from edit3dgs_ns.flame.motion import FlameMotion

__all__ = ["FlameAssets", "FlameModel", "FlameMotion", "FlamePose", "ShapedHead", "load_assets"]
