"""The options of commands that show an avatar in a scene. Imports nothing heavy: `edit3dgs --help` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SceneOptions:
    """A scene around the avatar, drawn in one pass with it: each hides the other where it is nearer."""

    background: Path | None = None
    """A run of `ns-train splatfacto` (its config.yml), or a splat (.ply)."""
    background_transform: Path | None = None
    """Where it stands: a JSON file with "matrix" (4 x 4), or "scale", "rotation" (degrees about x, y, z) and "translation"
    (metres), from the scene to the head's world, where y is up and the face looks along +z. The scene's own coordinates are those
    that ns-viewer shows of it. The tab Look of ns-viewer on an avatar places a scene by hand and saves such a file."""
