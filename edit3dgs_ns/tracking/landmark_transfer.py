"""The table of landmarks of any head model: the open head's own, FLAME's own, or the open head's carried over.

Carrying over takes some seconds, so the result is kept in the user's cache folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH, FlameAssets
from edit3dgs_ns.flame.loading import FLAME_SITE, load_assets
from edit3dgs_ns.tracking.detector import FIRST_IRIS
from edit3dgs_ns.tracking.landmark_table import (
    OPEN_HEAD_TABLE,
    ROWS,
    LandmarkTable,
    load_landmark_table,
)
from edit3dgs_ns.tracking.template_registration import FACING, eyeball_faces, register, vertex_normals

FLAME_EMBEDDING = "mediapipe_landmark_embedding.npz"
CARRIED_SPREAD = 0.0015
"""Metres that a carried landmark may be off, on top of its own spread."""
FARTHEST_FACE = 0.004
"""Median distance of the registered face (metres) beyond which the other mesh is no head in FLAME's frame."""
CANDIDATES = 40
"""Triangles around a point that the nearest one is looked for among."""


def landmark_table_of(head: FlameAssets) -> LandmarkTable:
    """The table of a head model: for FLAME its own `mediapipe_landmark_embedding.npz`, where that lies beside the model's file.

    Raises:
        UserError: a table is damaged, or there is none and the open head's cannot be carried over.
    """
    if head.name == "open-head":
        return load_landmark_table(head)
    beside = head.source.with_name(FLAME_EMBEDDING)
    if not beside.is_file():
        return transferred_table(head)
    own = load_landmark_table(head, beside)
    if (own.landmarks >= FIRST_IRIS).any():
        return own
    try:
        carried = transferred_table(head)
    except UserError:
        return own
    # FLAME's embedding has no irises, and without them nothing says where the eyes look.
    return joined(own, carried, carried.landmarks >= FIRST_IRIS)


def dense_table_of(head: FlameAssets) -> LandmarkTable:
    """The table with the most landmarks: FLAME's own embedding leaves out the cheeks and the irises.

    Raises:
        UserError: as `landmark_table_of`.
    """
    if head.name == "open-head":
        return load_landmark_table(head)
    try:
        return transferred_table(head)
    except UserError:
        return landmark_table_of(head)


def transferred_table(head: FlameAssets) -> LandmarkTable:
    """The table for a head model, found by registering the open head to it.

    Raises:
        UserError: the open head cannot be laid on it.
    """
    kept = _cache_path(head)
    if kept.is_file():
        return load_landmark_table(head, kept)
    table, distance = transfer(head)
    if distance > FARTHEST_FACE:
        raise UserError(
            f"{head.source}: the open head cannot be laid on this mesh (its face stays {1000 * distance:.0f} mm away), so nobody "
            f"knows where the landmarks are. Put FLAME's {FLAME_EMBEDDING} (from {FLAME_SITE}) beside the file."
        )
    try:
        with written_beside(kept) as partial, partial.open("wb") as file:
            table.save(file, head)
    except (OSError, UserError):
        return table  # a cache that cannot be written costs time alone
    return load_landmark_table(head, kept)


def transfer(head: FlameAssets) -> tuple[LandmarkTable, float]:
    """The table, and the registered face's median distance from the mesh (metres)."""
    open_head = load_assets(OPEN_HEAD_PATH)
    table = load_landmark_table(open_head)
    registered = register(head, open_head)
    corners = open_head.faces[table.faces]
    points = np.einsum("lk,lkc->lc", table.barycentric, registered.vertices[corners])
    normals = np.einsum(
        "lk,lkc->lc", table.barycentric, vertex_normals(registered.vertices, open_head.faces)[corners]
    )
    faces, barycentric = np.zeros(len(points), np.int64), np.zeros((len(points), 3))
    eyeballs = eyeball_faces(head)
    iris = table.landmarks >= FIRST_IRIS
    left = table.landmarks >= FIRST_IRIS + 5
    for rows, allowed in (
        (~iris, ~eyeballs.any(1)),
        (iris & left, eyeballs[:, 0]),
        (iris & ~left, eyeballs[:, 1]),
    ):
        usable = np.flatnonzero(allowed) if allowed.any() else np.arange(len(head.faces))
        faces[rows], barycentric[rows] = nearest_on_mesh(
            points[rows], normals[rows], head.v_template.astype(np.float64), head.faces, usable
        )
    turn, scale = registered.rotation, registered.scale
    carried = dataclasses.replace(
        table,
        faces=faces,
        barycentric=barycentric,
        offsets=scale * table.offsets @ turn.T,
        view_offsets=scale * np.einsum("ij,ljk->lik", turn, table.view_offsets),
        modes=np.zeros((len(points), 3, 0)),
        by_face=np.zeros((0, 0)),
        spread=np.hypot(scale * table.spread, CARRIED_SPREAD),
        source=head.source,
    )
    return carried, registered.distance


def joined(own: LandmarkTable, other: LandmarkTable, rows: Bool[np.ndarray, " L"]) -> LandmarkTable:
    """A table with some rows of another one added."""
    arrays = {name: np.concatenate([getattr(own, name), getattr(other, name)[rows]]) for name in ROWS}
    return dataclasses.replace(own, **arrays)


def nearest_on_mesh(
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    usable: Int[np.ndarray, " m"],
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
    """The triangle nearest to each point, among those that face its way, and the barycentric coordinates of the nearest point.

    Args:
        usable: numbers of the triangles that are looked at.
    """
    corners = vertices[faces[usable]]
    count = min(CANDIDATES, len(usable))
    near = cKDTree(corners.mean(1)).query(points, count)[1].reshape(len(points), count)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-15)
    facing = (
        np.einsum("nkc,nc->nk", across[near], normals) > FACING * np.linalg.norm(normals, axis=1)[:, None]
    )
    inside = _closest_barycentric(corners[near], points[:, None])
    found = np.einsum("nkj,nkjc->nkc", inside, corners[near])
    distance = (
        np.linalg.norm(found - points[:, None], axis=2) + ~facing
    )  # a metre: only where nothing faces it
    best = distance.argmin(1)
    rows = np.arange(len(points))
    return usable[near[rows, best]], inside[rows, best]


def _closest_barycentric(
    corners: Float[np.ndarray, "*n 3 3"], points: Float[np.ndarray, "*n 3"]
) -> Float[np.ndarray, "*n 3"]:
    """Barycentric coordinates of the point of a triangle that is closest to a point."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    best = np.full((*np.broadcast_shapes(a.shape[:-1], points.shape[:-1]), 3), np.nan)
    least = np.full(best.shape[:-1], np.inf)
    # Inside, or on one of the edges: the closest of the four.
    for candidate in (_plane(a, b, c, points), *(_edge(a, b, c, points, k) for k in range(3))):
        at = np.einsum("...k,...kc->...c", candidate, corners)
        distance = np.where(candidate.min(-1) >= 0, np.linalg.norm(at - points, axis=-1), np.inf)
        closer = distance < least
        best[closer], least[closer] = candidate[closer], distance[closer]
    return best


def _plane(a: np.ndarray, b: np.ndarray, c: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Barycentric coordinates of the projection on the triangle's plane; negative outside."""
    u, v, w = b - a, c - a, points - a
    uu, uv, vv = ((x * y).sum(-1) for x, y in ((u, u), (u, v), (v, v)))
    wu, wv = (w * u).sum(-1), (w * v).sum(-1)
    area = np.maximum(uu * vv - uv * uv, 1e-30)
    second, third = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
    return np.stack([1 - second - third, second, third], axis=-1)


def _edge(a: np.ndarray, b: np.ndarray, c: np.ndarray, points: np.ndarray, number: int) -> np.ndarray:
    """Barycentric coordinates of the closest point of one edge."""
    ends = (a, b, c)
    first, second = ends[number], ends[(number + 1) % 3]
    along = second - first
    share = ((points - first) * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-30)
    share = np.clip(share, 0, 1)
    result = np.zeros((*share.shape, 3))
    result[..., number], result[..., (number + 1) % 3] = 1 - share, share
    return result


def _cache_path(head: FlameAssets) -> Path:
    """In the user's cache folder, named after the mesh and the open head's table."""
    digest = hashlib.sha256(OPEN_HEAD_TABLE.read_bytes())
    for values in (head.v_template, head.faces.astype(np.int64)):
        digest.update(np.ascontiguousarray(values).tobytes())
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return root / "edit3dgs" / "landmarks" / f"{digest.hexdigest()[:20]}.npz"
