"""View and time disagreement: the colours of the same point of the head in different pictures.

Points lie on the true surface of the capture's head and hair and move with it. A picture shows a point where the first thing that a
    ray from the camera meets is the point, also through the four neighbouring pixels (so that no silhouette is near), and the
    surface is not seen edge-on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import map_coordinates

from edit3dgs_ns.capture.cameras import Camera, project
from edit3dgs_ns.synthetic.canonical import EYE, HAIR, SKIN, collar_distance
from edit3dgs_ns.synthetic.identity import BakedIdentity
from edit3dgs_ns.synthetic.scene import Scene

_LEAST_COSINE = 0.4
"""Between the surface's normal and the direction to the camera."""
_OWN_DEPTH = 0.0015
"""Metres that the ray through the point may end nearer or farther."""
_SLANT = 3.0
"""The same for the rays through neighbouring pixels, in pixels: a surface that is seen edge-on does."""
_HAIR_DEPTH = 0.015
"""The same for points of the hair, metres: it is locks over locks, and has no silhouette inside."""
_LEAST_POINTS = 30
"""Pairs of pictures with fewer common points are left out."""


@dataclass(frozen=True)
class SurfacePoints:
    """Points that stick to the surface of head and hair."""

    face: Int[np.ndarray, " points"]
    """Numbers in BakedIdentity.faces."""
    weights: Float[np.ndarray, "points 3"]
    """Barycentric coordinates."""

    def positions(self, scene: Scene) -> Float[np.ndarray, "points 3"]:
        """In the world, metres."""
        return np.einsum("pk,pkx->px", self.weights, self._corners(scene))

    def normals(self, scene: Scene) -> Float[np.ndarray, "points 3"]:
        """Unit normals of the faces, in the world."""
        a, b, c = np.moveaxis(self._corners(scene), 1, 0)
        normal = np.cross(b - a, c - a)
        return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)

    def _corners(self, scene: Scene) -> Float[np.ndarray, "points 3 3"]:
        return scene.vertices[scene.baked.faces[self.face]]


def surface_points(baked: BakedIdentity, count: int = 8000, seed: int = 0) -> SurfacePoints:
    """Points spread evenly over skin, eyes and hair; none on the clothes or inside the mouth."""
    rest = np.concatenate([baked.rest, baked.hair.vertices])[baked.faces]
    usable = np.isin(baked.face_material, (SKIN, EYE, HAIR))
    template = baked.head.assets.v_template.astype(np.float64)
    of_head = np.flatnonzero(baked.face_material != HAIR)
    usable[of_head] &= collar_distance(template[baked.faces[of_head]].mean(axis=1)) < -0.004
    area = np.linalg.norm(np.cross(rest[:, 1] - rest[:, 0], rest[:, 2] - rest[:, 0]), axis=1) * usable
    rng = np.random.default_rng(seed)
    face = rng.choice(len(area), count, p=area / area.sum())
    # Uniform in a triangle: reflect the half of the unit square that lies beyond its diagonal.
    u, v = rng.random((2, count))
    outside = u + v > 1
    u[outside], v[outside] = 1 - u[outside], 1 - v[outside]
    return SurfacePoints(face, np.stack([1 - u - v, u, v], axis=1))


@dataclass(frozen=True)
class Sighting:
    """Where a picture shows the points."""

    pixels: Float[np.ndarray, "points 2"]
    """x from the left, y from the top; pixel (0, 0) has its centre at (0.5, 0.5)."""
    visible: Bool[np.ndarray, " points"]

    def colors(self, image: Float[np.ndarray, "height width 3"]) -> Float[np.ndarray, "points 3"]:
        """Of the points in a picture, bilinearly; NaN where it does not show them."""
        rows, columns = self.pixels[:, 1] - 0.5, self.pixels[:, 0] - 0.5
        found = np.stack(
            [map_coordinates(image[..., k], (rows, columns), order=1, mode="nearest") for k in range(3)],
            axis=1,
        )
        return np.where(self.visible[:, None], found, np.nan)


def sighting(points: SurfacePoints, scene: Scene, camera: Camera, intersector: Any) -> Sighting:
    """Which of the points a camera sees, and where.

    Args:
        intersector: `build_intersector(scene.vertices, scene.baked.faces)`.
    """
    world = points.positions(scene)
    pixels, depth = project(world, camera)
    eye = camera.c2w[:3, 3]
    towards = world - eye
    distance = np.linalg.norm(towards, axis=1)
    # Locks of hair have two sides.
    cosine = np.abs((points.normals(scene) * towards).sum(axis=1)) / distance
    inside = (pixels > 1).all(axis=1) & (pixels[:, 0] < camera.width - 1) & (pixels[:, 1] < camera.height - 1)
    visible = inside & (cosine > _LEAST_COSINE) & (depth > 0)
    chosen = np.flatnonzero(visible)
    right, down = (camera.c2w[:3, axis] for axis in (0, 1))
    pixel_size = depth[chosen, None] / camera.K[0, 0]
    hair = scene.baked.face_material[points.face[chosen]] == HAIR
    near = np.where(hair, _HAIR_DEPTH, _SLANT * pixel_size[:, 0])
    for shift, tolerance in (
        (0 * right, _OWN_DEPTH),
        (right, near),
        (-right, near),
        (down, near),
        (-down, near),
    ):
        met = _first_hit(intersector, eye, towards[chosen] + shift * pixel_size)
        visible[chosen] &= np.abs(met - distance[chosen]) < tolerance
    return Sighting(pixels, visible)


def _first_hit(intersector: Any, eye: np.ndarray, rays: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """How far rays from the eye go until they meet the head, metres; infinite where they miss it."""
    directions = (rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)
    origins = np.broadcast_to(eye.astype(np.float32), directions.shape)
    hits = intersector.run(np.ascontiguousarray(origins), np.ascontiguousarray(directions), output=1)
    return np.where(hits["primID"] >= 0, hits["tfar"], np.inf)


def disagreement(colors: Float[np.ndarray, "pictures points 3"], pairs: Iterable[tuple[int, int]]) -> float:
    """Mean absolute difference of the colours of points that both pictures of a pair show, over all pairs; NaN if none do.

    Args:
        colors: sRGB; NaN where a picture does not show a point.
        pairs: of positions.
    """
    differences = [np.abs(colors[a] - colors[b]).mean(axis=-1) for a, b in pairs]
    common = [d[np.isfinite(d)] for d in differences]
    means = [d.mean() for d in common if len(d) >= _LEAST_POINTS]
    return float(np.mean(means)) if means else float("nan")


def pairs_of(
    pictures: list[tuple[str, int, int]], belong: Callable[[tuple, tuple], bool]
) -> list[tuple[int, int]]:
    """Positions of all pairs of pictures that belong together."""
    return [(a, b) for a, b in combinations(range(len(pictures)), 2) if belong(pictures[a], pictures[b])]


def same_moment(a: tuple, b: tuple) -> bool:
    """Two cameras of one timestep."""
    return bool(a[:2] == b[:2])


def other_moment(a: tuple, b: tuple) -> bool:
    """Two timesteps."""
    return bool(a[:2] != b[:2])
