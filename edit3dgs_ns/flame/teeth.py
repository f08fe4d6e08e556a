"""The teeth that GaussianAvatars adds to FLAME: 120 vertices in 8 rows of 15, 168 faces.

FLAME has no teeth. Two curved plates are built from the outer rings of the lips, so that their shape
directions follow the lips'; the upper one hangs on the neck joint (the skull), the lower one on the jaw. The
open head has teeth of its own.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from edit3dgs_ns.flame.assets import FlameAssets

FLAME_VERTICES = 5023
"""Vertex count of FLAME's topology; nothing is added to another one."""
TEETH_ROWS = (
    "upper_root", "lower_root", "upper_edge", "lower_edge",
    "upper_root_back", "upper_edge_back", "lower_root_back", "lower_edge_back",
)  # fmt: skip
"""The rows of 15 vertices, in the order in which they are appended; every row runs from the head's left (+x) to its right.

An avatar of GaussianAvatars names faces by number and stores offsets by vertex: rows, faces and the corners that a face begins
with must be numbered as there.
"""
ROW = 15
TEETH_VERTICES = ROW * len(TEETH_ROWS)
"""120."""
NECK, JAW = 1, 2


def add_teeth(assets: FlameAssets) -> FlameAssets:
    """FLAME with teeth: 5143 vertices, 10144 faces for FLAME's 5023 and 9976.

    The outer lip rings are taken from the region "lips" (`regions.with_flame_masks`), not from a list of
    vertex numbers.

    Raises:
        ValueError: the topology is not FLAME's, or the region "lips" is missing or has no single outer
            border.
    """
    if assets.num_vertices != FLAME_VERTICES:
        raise ValueError(
            f"{assets.source}: has {assets.num_vertices} vertices; teeth are added to FLAME's topology "
            f"({FLAME_VERTICES}) only"
        )
    if "lips" not in assets.face_regions:
        raise ValueError(
            f"{assets.source}: teeth are built from the region 'lips', which the model lacks. Give "
            "FLAME_masks.pkl (from "
            "https://flame.is.tue.mpg.de, 'FLAME Vertex Masks')."
        )
    upper, lower = outer_lip_rings(assets)
    rows = _row_positions(upper @ assets.v_template, lower @ assets.v_template)
    new = np.concatenate([rows[name] for name in TEETH_ROWS]).astype(np.float32)
    middle = np.tile(0.5 * (upper + lower), (len(TEETH_ROWS), 1))
    lower_row = np.repeat([name.startswith("lower") for name in TEETH_ROWS], ROW)
    weights = np.zeros((len(new), assets.weights.shape[1]), np.float32)
    weights[np.arange(len(new)), np.where(lower_row, JAW, NECK)] = 1

    def with_zeros(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array, np.zeros((len(new), *array.shape[1:]), array.dtype)])

    first, n_faces = assets.num_vertices, len(assets.faces)
    faces = np.concatenate([assets.faces, first + _teeth_faces()])
    shapedirs = np.einsum("nv,vcs->ncs", middle, assets.shapedirs).astype(np.float32)
    halves = {"teeth_upper": ~lower_row, "teeth_lower": lower_row, "teeth": np.ones_like(lower_row)}
    vertex_regions, face_regions = dict(assets.vertex_regions), dict(assets.face_regions)
    for name, mask in halves.items():
        vertex_regions[name] = first + np.flatnonzero(mask)
        face_regions[name] = n_faces + np.flatnonzero(mask[faces[n_faces:, 0] - first])
    return dataclasses.replace(
        assets,
        v_template=np.concatenate([assets.v_template, new]),
        faces=faces,
        shapedirs=np.concatenate([assets.shapedirs, shapedirs]),
        exprdirs=with_zeros(assets.exprdirs),
        posedirs=with_zeros(assets.posedirs),
        J_regressor=with_zeros(assets.J_regressor.T).T.copy(),
        weights=np.concatenate([assets.weights, weights]),
        uv=None,
        uv_faces=None,
        vertex_regions=vertex_regions,
        face_regions=face_regions,
    )


def outer_lip_rings(assets: FlameAssets) -> tuple[np.ndarray, np.ndarray]:
    """(15, V) weights of the upper and of the lower outer lip ring, both from the mouth's left corner to its right one.

    The border of the region "lips" is split at its two outermost points; each half, without these corners, is
    taken as it is when it has 15 vertices, and else at 15 even places along it.
    """
    loop = _longest_border(assets.faces[assets.face_regions["lips"]], assets)
    at = assets.v_template[loop]
    start, stop = int(at[:, 0].argmax()), int(at[:, 0].argmin())
    ring = np.roll(loop, -start)
    stop = (stop - start) % len(loop)
    halves = [ring[1:stop], ring[stop + 1 :][::-1]]
    halves.sort(key=lambda rows: -assets.v_template[rows, 1].mean())
    upper, lower = (_resampled(rows, assets) for rows in halves)
    return upper, lower


def _longest_border(faces: np.ndarray, assets: FlameAssets) -> np.ndarray:
    """The longest closed loop of border edges of a set of faces (the outer one: lips have an inner one
    too)."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    present = {(int(a), int(b)) for a, b in edges}
    following = {a: b for a, b in present if (b, a) not in present}
    loops = []
    while following:
        loop = [min(following)]
        while (nxt := following.pop(loop[-1], None)) is not None and nxt != loop[0]:
            loop.append(nxt)
        loops.append(np.array(loop))
    length = [np.linalg.norm(np.diff(assets.v_template[p], axis=0), axis=1).sum() for p in loops]
    if not loops or len(loops[int(np.argmax(length))]) < ROW:
        raise ValueError(
            f"{assets.source}: the region 'lips' ({len(faces)} faces) has no outer border to build teeth from"
        )
    return loops[int(np.argmax(length))]


def _resampled(rows: np.ndarray, assets: FlameAssets) -> np.ndarray:
    """(15, V) interpolation weights at even places along a path of vertices."""
    out = np.zeros((ROW, assets.num_vertices), np.float32)
    if len(rows) == ROW:
        out[np.arange(ROW), rows] = 1
        return out
    way = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(assets.v_template[rows], axis=0), axis=1))])
    at = np.linspace(0, way[-1], ROW)
    k = np.clip(np.searchsorted(way, at, side="right") - 1, 0, len(rows) - 2)
    share = (at - way[k]) / np.maximum(way[k + 1] - way[k], 1e-12)
    out[np.arange(ROW), rows[k]] += 1 - share
    out[np.arange(ROW), rows[k + 1]] += share
    return out


def _row_positions(upper: np.ndarray, lower: np.ndarray) -> dict[str, np.ndarray]:
    """Positions of the eight rows from the two lip rings."""
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


def _teeth_faces() -> np.ndarray:
    """(168, 3) faces between the rows, counter-clockwise seen from outside: of the upper teeth front, back and biting edge,
    then the same of the lower ones.

    Each cell of four vertices is cut into two faces. The cut changes its direction at the middle of the row, so that left and
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
