"""Rays of a camera, and what they hit of a triangle mesh (embree)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from edit3dgs_ns.capture.cameras import Camera


def sample_offsets(samples_per_pixel: int) -> Float[np.ndarray, "s 2"]:
    """Stratified sample places inside the unit pixel: the (0, 2)-like Hammersley set, the same for every
    pixel.
    """
    index = np.arange(samples_per_pixel)
    radical = np.array([sum(((i >> b) & 1) / 2 ** (b + 1) for b in range(8)) for i in index])
    shift = 1.0 / 2 ** (1 + int(np.ceil(np.log2(max(samples_per_pixel, 1)))))
    return np.stack([(index + 0.5) / samples_per_pixel, (radical + shift) % 1.0], axis=1)


def build_intersector(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]):
    """An embree scene holding one triangle mesh."""
    from embreex import rtcore_scene
    from embreex.mesh_construction import TriangleMesh

    scene = rtcore_scene.EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32))
    return scene


def ray_directions(camera: Camera, box: tuple[int, int, int, int], samples: int) -> np.ndarray:
    """Unit directions, rays ordered by row, column, sample."""
    x0, y0, x1, y1 = box
    offsets = sample_offsets(samples)
    x = (np.arange(x0, x1)[None, :, None] + offsets[None, None, :, 0] - camera.K[0, 2]) / camera.K[0, 0]
    y = (np.arange(y0, y1)[:, None, None] + offsets[None, None, :, 1] - camera.K[1, 2]) / camera.K[1, 1]
    x, y = np.broadcast_arrays(x, y)
    return world_directions(camera, x.ravel(), y.ravel())


def world_directions(camera: Camera, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    local = np.stack([x, -y, -np.ones_like(x)], axis=1).astype(np.float32)
    local /= np.sqrt(np.einsum("ij,ij->i", local, local))[:, None]  # sum(axis=1) of three columns is slow
    return np.ascontiguousarray(local @ camera.c2w[:3, :3].T.astype(np.float32))
