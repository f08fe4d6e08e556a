"""From detections to the table: the surface point that reprojects best, then what a landmark slides with view and face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from edit3dgs_ns.capture.cameras import project
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.tracking.detector import FIRST_IRIS, NUM_LANDMARKS
from edit3dgs_ns.tracking.landmark_table import VIEW_TERMS, LandmarkTable, view_terms
from tools.data.landmark_table.renders import Detection

ROBUST = 0.003
"""Metres beyond which a detection counts less and less."""
RINGS = 3
"""Triangles this many edges around the best vertex are tried."""
STIFF, STIFF_SHAPE, STIFF_EXPRESSION = 0.1, 40.0, 3.0
"""Weight of the prior that landmarks do not slide, in detections: with the view, a coefficient of shape, one of expression or the
jaw. By cross-validation over people."""
UNMODELLED = 0.0013
"""Metres that a real face's landmarks are off, on top: renders of the head model are what the model can explain."""
MODES = 24
"""Of the displacements that depend on the face."""
STEPS = 4
"""Of the reweighted least squares."""


def solve(head: FlameAssets, detections: Sequence[Detection], source) -> LandmarkTable:
    """The table of all landmarks.

    Each error is measured in metres at the head's distance: pixels times depth over focal length.
    """
    pixels = np.stack([d.landmarks for d in detections])
    projected, metres = _project_all(detections)
    best = _best_vertices(head, pixels, projected, metres)
    faces, barycentric = _refine(head, best, pixels, projected, metres)
    displacements, spread = _sliding(head, faces, barycentric, detections)
    offsets, view_offsets, by_face = np.split(displacements, [1, 1 + VIEW_TERMS], axis=2)
    modes, shown = _modes(by_face)
    return LandmarkTable(
        landmarks=np.arange(NUM_LANDMARKS),
        faces=faces,
        barycentric=barycentric,
        offsets=offsets[..., 0],
        view_offsets=view_offsets,
        modes=modes,
        by_face=shown,
        spread=spread,
        source=source,
    )


def _project_all(detections: Sequence[Detection]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of every vertex in every render, and metres in a pixel at the head's distance."""
    pairs = [project(d.vertices, d.camera) for d in detections]
    pixels = np.stack([p for p, _ in pairs]).astype(np.float32)
    metres = np.array(
        [depth.mean() / d.camera.K[0, 0] for (_, depth), d in zip(pairs, detections, strict=True)]
    )
    return pixels, metres


def _candidates(head: FlameAssets) -> tuple[np.ndarray, np.ndarray]:
    """Vertices that face landmarks, and iris landmarks, can be."""
    regions = head.vertex_regions
    inside = np.unique(np.concatenate([regions[name] for name in ("mouth", "teeth", "tongue", "gums")]))
    eyes = np.union1d(regions["eye_left"], regions["eye_right"])
    skin = np.setdiff1d(np.arange(head.num_vertices), np.setdiff1d(inside, regions["lips"]))
    in_front = head.v_template[:, 2] > head.v_template[:, 2].max() - 0.16
    return np.setdiff1d(skin[in_front[skin]], eyes), eyes


def _best_vertices(
    head: FlameAssets, pixels: np.ndarray, projected: np.ndarray, metres: np.ndarray
) -> Int[np.ndarray, " 478"]:
    """The vertex with the least median distance to each landmark."""
    skin, eyes = _candidates(head)
    best = np.zeros(NUM_LANDMARKS, np.int64)
    for landmark in range(NUM_LANDMARKS):
        allowed = eyes if landmark >= FIRST_IRIS else skin
        away: np.ndarray = projected[:, allowed] - pixels[:, landmark][:, None].astype(np.float32)
        distance = np.hypot(away[..., 0], away[..., 1]) * metres[:, None]
        best[landmark] = allowed[np.median(distance, axis=0).argmin()]
    return best


def _refine(
    head: FlameAssets, best: np.ndarray, pixels: np.ndarray, projected: np.ndarray, metres: np.ndarray
) -> tuple[Int[np.ndarray, " 478"], Float[np.ndarray, "478 3"]]:
    """The triangle near the best vertex, and the point in it, with the least robust error."""
    faces_of: list[list[int]] = [[] for _ in range(head.num_vertices)]
    for number, corners in enumerate(head.faces):
        for vertex in corners:
            faces_of[vertex].append(number)
    skin, eyes = _candidates(head)
    chosen, barycentric = np.zeros(NUM_LANDMARKS, np.int64), np.zeros((NUM_LANDMARKS, 3))
    for landmark in range(NUM_LANDMARKS):
        allowed = np.zeros(head.num_vertices, bool)
        allowed[eyes if landmark >= FIRST_IRIS else skin] = True
        ring = {int(best[landmark])}
        for _ in range(RINGS):
            ring |= {int(v) for u in ring for f in faces_of[u] for v in head.faces[f]}
        least = np.inf
        for number in {f for u in ring for f in faces_of[u] if allowed[head.faces[f]].all()}:
            error, at = _in_triangle(
                projected[:, head.faces[number]].astype(np.float64), pixels[:, landmark], metres
            )
            if error < least:
                least, chosen[landmark], barycentric[landmark] = error, number, at
    return chosen, barycentric


def _in_triangle(
    corners: Float[np.ndarray, "N 3 2"], pixels: Float[np.ndarray, "N 2"], metres: Float[np.ndarray, " N"]
) -> tuple[float, Float[np.ndarray, " 3"]]:
    """Iteratively reweighted least squares for the two free barycentric coordinates."""
    edges, goal = corners[:, 1:] - corners[:, :1], pixels - corners[:, 0]
    weight, at = np.ones(len(pixels)), np.full(2, 1 / 3)
    for _ in range(8):
        weight = weight * metres**2
        normal = np.einsum("n,nij,nkj->ik", weight, edges, edges) + 1e-12 * np.eye(2)
        at = np.clip(np.linalg.solve(normal, np.einsum("n,nij,nj->i", weight, edges, goal)), 0, 1)
        at /= max(1.0, at.sum())
        squared = ((goal - np.einsum("i,nij->nj", at, edges)) ** 2).sum(1) * metres**2
        weight = 1 / (1 + squared / ROBUST**2)
    return float(np.log1p(squared / ROBUST**2).mean()), np.array([1 - at.sum(), *at])


def _sliding(
    head: FlameAssets, faces: np.ndarray, barycentric: np.ndarray, detections: Sequence[Detection]
) -> tuple[Float[np.ndarray, "478 3 K"], Float[np.ndarray, " 478"]]:
    """Displacements in the head's frame, linear in the `_terms` of the render; and the spread around them."""
    errors, views = zip(*(_in_head_frame(head, faces, barycentric, d) for d in detections), strict=True)
    error, view = np.stack(errors), np.stack(views)
    terms, stiff = _terms(head, view, np.stack([d.face for d in detections]))
    # Only what is across the line of sight was seen.
    across = np.eye(3) - view[:, :, None] * view[:, None]
    design = np.einsum("nij,nk->nijk", across, terms).reshape(3 * len(view), -1)
    result, spread = np.zeros((NUM_LANDMARKS, 3, len(stiff))), np.zeros(NUM_LANDMARKS)
    for landmark in range(NUM_LANDMARKS):
        weight = np.ones(len(view))
        for _ in range(STEPS):
            weighted = design.T * np.repeat(weight, 3)
            normal = weighted @ design + np.diag(np.tile(stiff, 3))
            solution = np.linalg.solve(normal, weighted @ error[:, landmark].ravel())
            squared = ((error[:, landmark] - (design @ solution).reshape(-1, 3)) ** 2).sum(1)
            weight = 1 / (1 + squared / ROBUST**2)
        result[landmark] = solution.reshape(3, -1)
        # The median of a two-dimensional normal distribution's squared length is 2 ln 2 variances.
        spread[landmark] = np.hypot(np.sqrt(np.median(squared) / (2 * np.log(2))), UNMODELLED)
    return result, spread


def _terms(
    head: FlameAssets, view: Float[np.ndarray, "N 3"], face: Float[np.ndarray, "N F"]
) -> tuple[Float[np.ndarray, "N K"], Float[np.ndarray, " K"]]:
    """What the displacement is linear in: one, the view, the face; and the stiffness of each coefficient's prior."""
    by_view = np.concatenate([np.ones((len(view), 1)), view_terms(view)], axis=1)
    num_shape = head.shapedirs.shape[2]
    stiff = np.repeat(
        [STIFF, STIFF_SHAPE, STIFF_EXPRESSION],
        [by_view.shape[1], num_shape, face.shape[1] - num_shape],
    )
    return np.concatenate([by_view, face], axis=1), stiff


def _modes(
    by_face: Float[np.ndarray, "L 3 F"],
) -> tuple[Float[np.ndarray, "L 3 R"], Float[np.ndarray, "R F"]]:
    """The strongest modes of the displacements that depend on the face, and how much of each a coefficient shows."""
    left, strength, right = np.linalg.svd(by_face.reshape(-1, by_face.shape[2]), full_matrices=False)
    return (left * strength)[:, :MODES].reshape(*by_face.shape[:2], MODES), right[:MODES]


def _in_head_frame(
    head: FlameAssets, faces: np.ndarray, barycentric: np.ndarray, detection: Detection
) -> tuple[Float[np.ndarray, "478 3"], Float[np.ndarray, " 3"]]:
    """What the landmarks miss the surface points by, and the unit direction to the camera."""
    points = np.einsum("lk,lkc->lc", barycentric, detection.vertices[head.faces[faces]])
    pixels, depth = project(points, detection.camera)
    missed = (detection.landmarks - pixels) * (depth / detection.camera.K[0, 0])[:, None]
    in_camera = np.stack([missed[:, 0], -missed[:, 1], np.zeros(len(missed))], axis=1)
    to_head = detection.head_R.T
    towards = to_head @ (detection.camera.c2w[:3, 3] - points.mean(0))
    return in_camera @ detection.camera.c2w[:3, :3].T @ to_head.T, towards / np.linalg.norm(towards)
