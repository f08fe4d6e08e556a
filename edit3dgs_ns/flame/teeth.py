"""Teeth for FLAME, as GaussianAvatars and VHAP add them: 120 vertices in 8 rows of 15, 168 faces.

FLAME has no teeth. Two curved plates are built between the outer rings of the lips, so that their shape directions follow the
lips'; the upper plate is skinned to the neck joint (the skull), the lower one to the jaw joint. The open head has teeth of its
own and gets none of these.

Positions, with u and l the upper and lower lip ring of the mean head and d = mean |u - l| (as GaussianAvatars places them; Qian
et al., CVPR 2024):

    middle     = (u + l) / 2, y flattened to its mean, z - 1.5 d
    upper edge = middle + (0, 0.1 d, 0)               lower edge = middle - (0, 0.1 d, 0.4 d)
    upper root = upper edge + (0, 2 d, 0)             lower root = lower edge - (0, 2 d, 0)
    back of each row = row - (0, 0, d)
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from jaxtyping import Float, Int

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import FlameAssets

FLAME_VERTICES, FLAME_FACES = 5023, 9976
"""Size of FLAME's mesh, the same in every release."""
UPPER_LIP = (1713, 1715, 1716, 1735, 1696, 1694, 1657, 3543, 2774, 2811, 2813, 2850, 2833, 2832, 2830)
LOWER_LIP = (1576, 1577, 1773, 1774, 1795, 1802, 1865, 3503, 2948, 2905, 2898, 2881, 2880, 2713, 2712)
"""Vertices of FLAME on the outer edge of the red of the lips, from the subject's left (+x) to the right. Neighbours in a row share
an edge. FLAME's mask "lips" reaches two to three edges further out: its border is not this ring."""
TEETH_ROWS = (
    "upper_root", "lower_root", "upper_edge", "lower_edge",
    "upper_root_back", "upper_edge_back", "lower_root_back", "lower_edge_back",
)  # fmt: skip
"""The rows of 15 vertices in the order in which they are appended; each runs from the subject's left (+x) to the right.

Avatars of GaussianAvatars refer to faces by index and store offsets by vertex: rows, faces and the first corner of each face
are numbered as there.
"""
ROW = len(UPPER_LIP)
"""15."""
TEETH_VERTICES = ROW * len(TEETH_ROWS)
"""120."""
_NECK, _JAW = 1, 2


def has_flame_topology(assets: FlameAssets) -> bool:
    """Whether vertex and face numbers mean the same as in FLAME's own mesh, so that `add_teeth` applies."""
    return _topology_difference(assets) is None


def add_teeth(assets: FlameAssets) -> FlameAssets:
    """Returns FLAME with teeth: 5143 vertices and 10144 faces, the regions `teeth`, `teeth_upper` and `teeth_lower` among them.

    The teeth have the mean shape directions of both lip rings, no expression and no pose directions. Texture coordinates are
    dropped: the teeth have none.

    Raises:
        ValueError: the mesh does not have FLAME's topology.
    """
    difference = _topology_difference(assets)
    if difference is not None:
        raise UserError(f"{assets.source}: {difference}. Teeth are added to FLAME's topology only.")
    upper, lower = list(UPPER_LIP), list(LOWER_LIP)
    rows = _row_positions(assets.v_template[upper], assets.v_template[lower])
    new = np.concatenate([rows[name] for name in TEETH_ROWS]).astype(np.float32)
    is_lower = np.repeat([name.startswith("lower") for name in TEETH_ROWS], ROW)
    weights = np.zeros((TEETH_VERTICES, assets.weights.shape[1]), np.float32)
    weights[np.arange(TEETH_VERTICES), np.where(is_lower, _JAW, _NECK)] = 1
    shapedirs = np.tile(
        0.5 * (assets.shapedirs[upper] + assets.shapedirs[lower]), (len(TEETH_ROWS), 1, 1)
    ).astype(np.float32)
    faces = np.concatenate([assets.faces, FLAME_VERTICES + _teeth_faces()])
    vertex_regions, face_regions = dict(assets.vertex_regions), dict(assets.face_regions)
    for name, mask in {"teeth_upper": ~is_lower, "teeth_lower": is_lower, "teeth": is_lower | True}.items():
        vertex_regions[name] = FLAME_VERTICES + np.flatnonzero(mask)
        face_regions[name] = FLAME_FACES + np.flatnonzero(mask[faces[FLAME_FACES:, 0] - FLAME_VERTICES])
    return dataclasses.replace(
        assets,
        v_template=np.concatenate([assets.v_template, new]),
        faces=faces,
        shapedirs=np.concatenate([assets.shapedirs, shapedirs]),
        exprdirs=_with_zero_rows(assets.exprdirs),
        posedirs=_with_zero_rows(assets.posedirs),
        J_regressor=_with_zero_rows(assets.J_regressor.T).T.copy(),
        weights=np.concatenate([assets.weights, weights]),
        uv=None,
        uv_faces=None,
        vertex_regions=vertex_regions,
        face_regions=face_regions,
    )


def _topology_difference(assets: FlameAssets) -> str | None:
    """Difference from FLAME's mesh, or None. Counts come first: only then do vertex numbers mean anything."""
    for found, expected, what in (
        (assets.num_vertices, FLAME_VERTICES, "vertices"),
        (len(assets.faces), FLAME_FACES, "faces"),
    ):
        if found != expected:
            return f"has {found} {what}, FLAME {expected}"
    corners = assets.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges = {
        (min(a, b), max(a, b)) for a, b in corners[np.isin(corners, UPPER_LIP + LOWER_LIP).all(1)].tolist()
    }
    for row in (UPPER_LIP, LOWER_LIP):
        for a, b in itertools.pairwise(row):
            if (min(a, b), max(a, b)) not in edges:
                return f"vertices {a} and {b} share no edge, but are neighbours on FLAME's lips"
    return None


def _with_zero_rows(array: Float[np.ndarray, V * rest]) -> Float[np.ndarray, V + 120 * rest]:
    return np.concatenate([array, np.zeros((TEETH_VERTICES, *array.shape[1:]), array.dtype)])


def _row_positions(
    upper: Float[np.ndarray, "15 3"], lower: Float[np.ndarray, "15 3"]
) -> dict[str, Float[np.ndarray, "15 3"]]:
    """Positions of the eight rows (metres) from the two lip rings."""
    gap = float(np.linalg.norm(upper - lower, axis=1).mean())
    middle = 0.5 * (upper + lower)
    middle[:, 1] = middle[:, 1].mean()
    middle[:, 2] -= 1.5 * gap
    y, z = np.array([0, gap, 0]), np.array([0, 0, gap])
    rows = {"upper_edge": middle + 0.1 * y, "lower_edge": middle - 0.1 * y - 0.4 * z}
    rows["upper_root"] = rows["upper_edge"] + 2 * y
    rows["lower_root"] = rows["lower_edge"] - 2 * y
    rows.update({f"{name}_back": row - z for name, row in list(rows.items())})
    return rows


def _teeth_faces() -> Int[np.ndarray, "168 3"]:
    """Faces between the rows, counter-clockwise seen from outside: front, back and edge of the upper teeth, then of the lower.

    Each cell of four vertices is cut into two faces. The direction of the cut changes at the middle of the row, so that left and
    right mirror each other.
    """
    row = {name: ROW * number for number, name in enumerate(TEETH_ROWS)}
    middle = (ROW - 1) // 2
    faces = []
    for first, second, winding, on_the_left in _STRIPS:
        at = {"a": row[first], "b": row[second]}
        for cell in range(ROW - 1):
            cut = on_the_left if cell < middle else 1 - on_the_left
            faces += [[at[name] + cell + step for name, step in face] for face in winding[cut]]
    return np.array(faces)


_A0, _A1, _B0, _B1 = ("a", 0), ("a", 1), ("b", 0), ("b", 1)
_ONE_WAY = (((_A0, _B1, _B0), (_A0, _A1, _B1)), ((_A0, _A1, _B0), (_A1, _B1, _B0)))
"""Faces of a cell between row a and row b: cut from a0 to b1, and cut from a1 to b0."""
_OTHER_WAY = (((_A0, _B0, _B1), (_A0, _B1, _A1)), ((_A0, _B0, _A1), (_A1, _B0, _B1)))
_STRIPS = (
    ("upper_root", "upper_edge", _ONE_WAY, 0),
    ("upper_root_back", "upper_edge_back", _OTHER_WAY, 0),
    ("upper_edge_back", "upper_edge", _OTHER_WAY, 1),
    ("lower_edge", "lower_root", _ONE_WAY, 1),
    ("lower_root_back", "lower_edge_back", _ONE_WAY, 0),
    ("lower_edge_back", "lower_edge", _ONE_WAY, 1),
)
"""Row a, row b, the winding, and the cut of the cells on the head's left."""
