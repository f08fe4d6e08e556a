"""Ray casting: where every sample of an image meets the head, gathered into shadable fragments.

The four to nine samples of a pixel that hit the same material are merged into one fragment with averaged
surface attributes (as multisample anti-aliasing does): shading cost follows pixels, edges follow samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float, Int

from edit3dgs_ns.capture.cameras import Camera, project
from edit3dgs_ns.capture.rays import build_intersector, ray_directions, world_directions


@dataclass(frozen=True)
class Fragments:
    """Merged samples, ordered by pixel.

    Attributes:
        pixel: row * width + column.
        material: material number of the samples (the `face_material` of the traced mesh).
        weight: share of the pixel's samples, in (0, 1].
        attributes: vertex attributes averaged over the samples.
        view: unit directions from the surface to the camera, world axes.
    """

    pixel: Int[np.ndarray, " n"]
    material: Int[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]
    attributes: Float[np.ndarray, "n a"]
    view: Float[np.ndarray, "n 3"]


def trace(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    face_material: Int[np.ndarray, " f"],
    attributes: Float[np.ndarray, "v a"],
    camera: Camera,
    samples_per_pixel: int,
    materials: int,
    intersector=None,
) -> Fragments:
    """Cast `samples_per_pixel` rays through every pixel of the mesh's bounding box.

    Args:
        vertices: world positions, metres.
        face_material: material number of each face, below `materials`.
        attributes: what to interpolate over the faces.
        intersector: `build_intersector(vertices, faces)` if it exists already.
    """
    x0, y0, x1, y1 = _bounding_box(vertices, camera)
    if x0 >= x1 or y0 >= y1:
        empty = np.zeros(0, np.int64)
        return Fragments(
            empty,
            empty,
            np.zeros(0, np.float32),
            np.zeros((0, attributes.shape[1]), np.float32),
            np.zeros((0, 3), np.float32),
        )
    directions = ray_directions(camera, (x0, y0, x1, y1), samples_per_pixel)
    origins = np.broadcast_to(camera.c2w[:3, 3].astype(np.float32), directions.shape)
    intersector = intersector or build_intersector(vertices, faces)
    hits = intersector.run(np.ascontiguousarray(origins), directions, output=1)
    primitive = hits["primID"]
    slots = (y1 - y0) * (x1 - x0) * materials
    slot_of, slot_count = _assign_fragments(
        primitive, face_material.astype(np.int32), samples_per_pixel, materials, slots
    )
    gathered, counts = _gather(
        primitive,
        hits["u"],
        hits["v"],
        faces.astype(np.int32),
        attributes.astype(np.float32),
        slot_of,
        face_material.astype(np.int32),
        samples_per_pixel,
        materials,
        slot_count,
    )
    slot = np.flatnonzero(slot_of >= 0)
    local, material = np.divmod(slot, materials)
    row, column = np.divmod(local, x1 - x0)
    pixel = (row + y0) * camera.width + column + x0
    return Fragments(pixel, material, counts / samples_per_pixel, gathered, _view_directions(camera, pixel))


def _bounding_box(vertices: np.ndarray, camera: Camera) -> tuple[int, int, int, int]:
    pixels, depth = project(vertices.astype(np.float64), camera)
    if depth.min() < 0.01:  # some of the head is behind the camera: its projection bounds nothing
        return 0, 0, camera.width, camera.height
    low = np.floor(pixels.min(axis=0)).astype(int) - 1
    high = np.ceil(pixels.max(axis=0)).astype(int) + 1
    return max(low[0], 0), max(low[1], 0), min(high[0], camera.width), min(high[1], camera.height)


def _view_directions(camera: Camera, pixel: np.ndarray) -> np.ndarray:
    row, column = np.divmod(pixel, camera.width)
    x = (column + 0.5 - camera.K[0, 2]) / camera.K[0, 0]
    y = (row + 0.5 - camera.K[1, 2]) / camera.K[1, 1]
    return -world_directions(camera, x, y)


@numba.njit(cache=True, nogil=True)
def _assign_fragments(primitive, face_material, samples, materials, slots):
    """Number of the fragment of each (pixel, material) slot in order, -1 for slots nothing hit."""
    slot_of = np.full(slots, -1, np.int32)
    for i in range(primitive.shape[0]):
        if primitive[i] >= 0:
            slot_of[(i // samples) * materials + face_material[primitive[i]]] = 0
    count = 0
    for s in range(slots):
        if slot_of[s] == 0:
            slot_of[s] = count
            count += 1
    return slot_of, count


@numba.njit(cache=True, nogil=True)
def _gather(primitive, u, v, faces, attributes, slot_of, face_material, samples, materials, fragments):
    """Mean of the barycentric attributes of each fragment's samples, and how many there were."""
    channels = attributes.shape[1]
    out = np.zeros((fragments, channels), np.float32)
    counts = np.zeros(fragments, np.float32)
    for i in range(primitive.shape[0]):
        p = primitive[i]
        if p < 0:
            continue
        f = slot_of[(i // samples) * materials + face_material[p]]
        a, b, c = faces[p, 0], faces[p, 1], faces[p, 2]
        wb, wc = u[i], v[i]
        wa = np.float32(1.0) - wb - wc
        counts[f] += 1.0
        for k in range(channels):
            out[f, k] += wa * attributes[a, k] + wb * attributes[b, k] + wc * attributes[c, k]
    for f in range(fragments):
        for k in range(channels):
            out[f, k] /= counts[f]
    return out, counts
