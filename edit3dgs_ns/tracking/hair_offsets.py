"""Offsets of the scalp's vertices, so that the head's outline is that of the person's hair.

A head model is bald, and landmarks say nothing about hair. Masks do: where the outline of the fitted head is the scalp or an ear,
the person's outline is further out, by the thickness of the hair. Every such vertex is moved along the ray from the head's middle;
what no outline shows (the forehead's hairline, the back) is interpolated smoothly and symmetrically. The offsets are those that
VHAP calls `static_offset`: part of the identity, the same in all frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.spatial import cKDTree

from edit3dgs_ns.capture.cameras import Camera, project
from edit3dgs_ns.capture.rays import build_intersector, ray_directions
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.model import FlameModel, ShapedHead
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.regions import region_vertices

REGIONS = ("scalp", "ears")
"""Parts of the head that hair covers."""
MOST_FRAMES = 8
ROUNDS = 2
"""The outline is found again on the moved head."""
LARGEST, SMALLEST = 0.06, -0.005
"""Offsets in metres."""
_SMOOTH, _SYMMETRIC, _ANCHORED = 1.0, 0.5, 2.0
"""Weights beside that of an outline vertex: neighbours (a centimetre apart) alike, both sides alike, nothing beyond the border."""
_BORDER = 0.03
"""Metres around the parts over which offsets fade, so that they leave no step."""
_ON_OUTLINE = 1.5
"""Pixels that a vertex may be inside of the outline of the drawn head."""
_STEP = 0.5
"""Pixels between looks at the mask along a ray."""


@dataclass(frozen=True)
class OutlineShift:
    """How far the outline of a drawn head is from a person's, at n of its vertices."""

    vertices: Int[np.ndarray, " n"]
    starts: Float[np.ndarray, "n 2"]
    """Where they are in the image, pixels."""
    directions: Float[np.ndarray, "n 2"]
    """Unit vectors in the image, away from the head's middle."""
    per_metre: Float[np.ndarray, " n"]
    """Pixels of a metre along them."""
    pixels: Float[np.ndarray, " n"]
    """Of the image along them, from the drawn outline to the person's."""


@dataclass(frozen=True)
class OutlineTracer:
    """A head whose outlines are compared with masks."""

    head: FlameAssets
    motion: FlameMotion
    shaped: ShapedHead
    covered: Bool[np.ndarray, " vertices"]
    """Vertices that hair covers."""
    away: Float[np.ndarray, "vertices 3"]
    """Unit vectors from the middle of the skull, at rest."""

    @classmethod
    def of(cls, head: FlameAssets, motion: FlameMotion) -> OutlineTracer:
        """Of a head whose model names its scalp, with the motion's static offsets if it has any."""
        model = FlameModel.from_assets(head)
        rest = model.shaped(motion.shape, None).v_shaped.double().numpy()
        covered = np.zeros(len(rest), bool)
        covered[region_vertices(head, *(name for name in REGIONS if name in head.vertex_regions))] = True
        shaped = model.shaped(motion.shape, motion.static_offset)
        return cls(head, motion, shaped, covered, _away_from_the_middle(rest, covered))

    def shift(self, timestep: int, camera: Camera, mask: Float[np.ndarray, "height width"]) -> OutlineShift:
        """Compares the covered part of the outline with a mask of the camera's size."""
        pose = self.motion.pose(slice(timestep, timestep + 1))
        with torch.no_grad():
            here = self.shaped.posed(pose)[0].double().numpy()
            millimetre = torch.from_numpy(0.001 * self.away).float()
            shaped = ShapedHead(self.shaped.model, self.shaped.v_shaped + millimetre)
            further = shaped.posed(pose)[0].double().numpy()
        pixels, _ = project(here, camera)
        rays = 1000 * (project(further, camera)[0] - pixels)
        drawn = _silhouette(here, self.head.faces, camera)
        found = np.flatnonzero(self.covered & _on_outline(drawn, pixels))
        speed = np.linalg.norm(rays[found], axis=1)
        found, speed = found[speed > 1], speed[speed > 1]
        rays = rays[found] / speed[:, None]
        most = LARGEST * float(speed.max(initial=1.0))
        # Of the two outlines, not from the vertex, which is a little inside of its own.
        gap = _distance_to_edge(mask, pixels[found], rays, most) - _distance_to_edge(
            drawn, pixels[found], rays, most
        )
        known = np.isfinite(gap)
        return OutlineShift(found[known], pixels[found][known], rays[known], speed[known], gap[known])


def hair_offsets(
    head: FlameAssets,
    motion: FlameMotion,
    camera: Camera,
    masks: Sequence[Float[np.ndarray, "height width"]],
    timesteps: Sequence[int],
) -> Float[np.ndarray, "vertices 3"]:
    """Displacements of the head at rest, metres; zeros where the head model does not name its scalp.

    Args:
        head: the head model.
        motion: fitted to the frames.
        camera: that took all of them.
        masks: share of each pixel that shows the person, in [0, 1], of some frames.
        timesteps: of the masks.
    """
    if not names_hair(head):
        return np.zeros((head.num_vertices, 3), np.float32)
    tracer = OutlineTracer.of(head, replace(motion, static_offset=None))
    rest, covered = tracer.shaped.v_shaped.double().numpy(), tracer.covered
    beyond, _ = cKDTree(rest[covered]).query(rest)
    movable = beyond < _BORDER
    smooth = _smoothness(head, rest, movable, _ANCHORED * (beyond / _BORDER) ** 2)
    thickness = np.zeros(len(rest))
    for _ in range(ROUNDS):
        offset = torch.from_numpy(thickness[:, None] * tracer.away).float()
        drawn = replace(tracer, shaped=tracer.shaped.model.shaped(motion.shape, offset))
        shifts = [drawn.shift(t, camera, mask) for t, mask in zip(timesteps, masks, strict=True)]
        thickness = _solved(shifts, thickness, smooth, movable)
    return (thickness[:, None] * tracer.away).astype(np.float32)


def names_hair(head: FlameAssets) -> bool:
    """Whether a head model says where hair is."""
    return "scalp" in head.vertex_regions


def chosen_timesteps(motion: FlameMotion) -> list[int]:
    """At most `MOST_FRAMES` timesteps that differ in how the head is turned: evenly spread over its yaw."""
    yaw = (motion.rotation + motion.neck_pose)[:, 1].numpy()
    places = np.linspace(0, len(yaw) - 1, min(MOST_FRAMES, len(yaw))).round().astype(int)
    return sorted({int(t) for t in np.argsort(yaw, kind="stable")[places]})


def _away_from_the_middle(
    rest: Float[np.ndarray, "vertices 3"], covered: Bool[np.ndarray, " vertices"]
) -> Float[np.ndarray, "vertices 3"]:
    """Unit vectors from the middle of the skull: unlike normals they vary smoothly, and carry an ear as a whole."""
    part = rest[covered]
    middle = (part.min(0) + part.max(0)) / 2
    middle[0] = 0.0
    rays = rest - middle
    return rays / np.linalg.norm(rays, axis=1, keepdims=True).clip(1e-6)


def _smoothness(
    head: FlameAssets,
    rest: Float[np.ndarray, "vertices 3"],
    movable: Bool[np.ndarray, " vertices"],
    anchored: Float[np.ndarray, " vertices"],
) -> sparse.csr_matrix:
    """Rows that should be 0: differences over edges, differences of the two sides, and offsets around the parts."""
    edges = np.unique(
        np.sort(np.concatenate([head.faces[:, [0, 1]], head.faces[:, [1, 2]], head.faces[:, [0, 2]]])), axis=0
    )
    inside = edges[movable[edges].all(1)]
    length = np.linalg.norm(rest[inside[:, 0]] - rest[inside[:, 1]], axis=1)
    # Differences per length: a coarse mesh is no stiffer than a fine one.
    weight = _SMOOTH * 0.01 / length.clip(0.002)
    template = head.v_template
    own = np.flatnonzero(movable)
    _, mirrored = cKDTree(template[own]).query(template[own] * [-1.0, 1.0, 1.0])
    rows = [
        _rows(len(rest), [(inside[:, 0], weight), (inside[:, 1], -weight)]),
        _rows(
            len(rest), [(own, np.full(len(own), _SYMMETRIC)), (own[mirrored], np.full(len(own), -_SYMMETRIC))]
        ),
        _rows(len(rest), [(own, anchored[own])]),
    ]
    return sparse.vstack(rows).tocsr()


def _rows(columns: int, terms: list[tuple[np.ndarray, np.ndarray]]) -> sparse.csr_matrix:
    count = len(terms[0][0])
    row = np.tile(np.arange(count), len(terms))
    column = np.concatenate([where for where, _ in terms])
    value = np.concatenate([weight for _, weight in terms])
    return sparse.csr_matrix((value, (row, column)), shape=(count, columns))


def _silhouette(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"], camera: Camera
) -> Bool[np.ndarray, "height width"]:
    """Pixels whose middle shows the head."""
    directions = ray_directions(camera, (0, 0, camera.width, camera.height), 1)
    origins = np.broadcast_to(camera.c2w[:3, 3].astype(np.float32), directions.shape).copy()
    hits = build_intersector(vertices, faces).run(origins, directions, output=1)["primID"] >= 0
    return hits.reshape(camera.height, camera.width)


def _on_outline(
    drawn: Bool[np.ndarray, "height width"], pixels: Float[np.ndarray, "vertices 2"]
) -> Bool[np.ndarray, " vertices"]:
    """Vertices at the outline of the drawn head, inside of the image."""
    # Where the image ends the head does not: no outline there.
    padded = cv2.copyMakeBorder(drawn.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inward = cv2.distanceTransform(padded, cv2.DIST_L2, 5)
    height, width = drawn.shape
    x, y = np.floor(pixels).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    return inside & (inward[y + 1, x + 1] <= _ON_OUTLINE)


def _distance_to_edge(
    mask: Float[np.ndarray, "height width"],
    starts: Float[np.ndarray, "n 2"],
    directions: Float[np.ndarray, "n 2"],
    most: float,
) -> Float[np.ndarray, " n"]:
    """Pixels from each start to where the mask ends along its direction; negative from outside. NaN beyond image or limit."""
    steps = np.arange(-most / 4, most, _STEP)
    points = starts[:, None] + steps[None, :, None] * directions[:, None]
    coordinates = (points - 0.5).astype(np.float32)
    values = cv2.remap(mask.astype(np.float32), coordinates[..., 0], coordinates[..., 1], cv2.INTER_LINEAR)
    height, width = mask.shape
    outside = (points < 0).any(-1) | (points[..., 0] > width) | (points[..., 1] > height)
    person = np.where(outside, np.nan, values) >= 0.5
    last = person.shape[1] - 1 - person[:, ::-1].argmax(1)
    ends = person.any(1) & (last < len(steps) - 1)
    # The next look after the last of the person has to be at background, not beyond the image.
    following = np.minimum(last + 1, len(steps) - 1)
    ends &= ~outside[np.arange(len(last)), following]
    return np.where(ends, steps[last] + _STEP / 2, np.nan)


def _solved(
    shifts: Sequence[OutlineShift],
    thickness: Float[np.ndarray, " vertices"],
    smooth: sparse.csr_matrix,
    movable: Bool[np.ndarray, " vertices"],
) -> Float[np.ndarray, " vertices"]:
    """Offsets along the rays, metres: least squares of outlines and smoothness. `thickness` is that of the drawn head."""
    columns = smooth.shape[1]
    share = 1 / np.sqrt(max(len(shifts), 1))
    rows = [_rows(columns, [(shift.vertices, np.full(len(shift.vertices), share))]) for shift in shifts]
    wanted = [
        share * (thickness[shift.vertices] + shift.pixels / shift.per_metre).clip(SMALLEST, LARGEST)
        for shift in shifts
    ]
    own = np.flatnonzero(movable)
    matrix = sparse.vstack([*rows, smooth]).tocsr()[:, own]
    target = np.concatenate([*wanted, np.zeros(smooth.shape[0])])
    normal = (matrix.T @ matrix + 1e-6 * sparse.identity(len(own))).tocsc()
    result = np.zeros(columns)
    result[own] = sparse.linalg.spsolve(normal, matrix.T @ target)
    return result.clip(SMALLEST, LARGEST)
