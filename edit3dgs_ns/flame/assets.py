"""`FlameAssets`: a parametric head as plain arrays, FLAME or the embedded open head. `loading` reads them from files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edit3dgs_ns.errors import UserError

OPEN_HEAD_PATH = Path(__file__).parent / "data" / "open_head.npz"
"""The embedded head."""


@dataclass(frozen=True)
class FlameAssets:
    """A parametric head as arrays, whatever file it came from. Metres; y up, z out of the face, x to its own
    left.

    V vertices, F faces, S shape and E expression directions, J joints (global, neck, jaw, left eye, right
    eye).
    """

    v_template: np.ndarray
    """(V, 3) float32 mean head."""
    faces: np.ndarray
    """(F, 3) int64 vertex indices, counter-clockwise seen from outside."""
    shapedirs: np.ndarray
    """(V, 3, S) float32 displacement per unit of each shape coefficient."""
    exprdirs: np.ndarray
    """(V, 3, E) float32 displacement per unit of each expression coefficient."""
    posedirs: np.ndarray
    """(V, 3, 9 (J-1)) float32 displacement per entry of the joints' rotation matrices minus identity."""
    J_regressor: np.ndarray
    """(J, V) float32 joint positions as averages of vertices."""
    parents: np.ndarray
    """(J,) int64 parent of each joint, -1 for the root."""
    weights: np.ndarray
    """(V, J) float32 skinning weights; rows sum to 1."""
    uv: np.ndarray | None = None
    """(U, 2) float32 texture coordinates, or None."""
    uv_faces: np.ndarray | None = None
    """(F, 3) int64 indices into ``uv``, or None."""
    vertex_regions: dict[str, np.ndarray] = field(default_factory=dict)
    """Region name -> sorted vertex indices (int64)."""
    face_regions: dict[str, np.ndarray] = field(default_factory=dict)
    """Region name -> sorted face indices (int64)."""
    shape_names: tuple[str, ...] | None = None
    """Name of each shape direction, where it has one."""
    expression_names: tuple[str, ...] | None = None
    """Name of each expression direction, where it has one (the open head: ARKit's)."""
    name: str = "flame"
    """"open-head" or "flame"."""
    source: Path = OPEN_HEAD_PATH
    """The file that was read."""

    @property
    def num_vertices(self) -> int:
        """V."""
        return len(self.v_template)

    def expression_index(self, name: str) -> int:
        """Index of a named expression direction.

        Raises:
            ValueError: the model has no direction of that name.
        """
        if self.expression_names is None or name not in self.expression_names:
            known = "none are named" if self.expression_names is None else ", ".join(self.expression_names)
            raise UserError(f"{self.source}: no expression direction is called {name!r} (known: {known})")
        return self.expression_names.index(name)
