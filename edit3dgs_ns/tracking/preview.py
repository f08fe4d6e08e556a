"""The video that shows at a glance whether tracking worked: frames with the fitted mesh and the landmarks drawn over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.capture.rays import build_intersector, ray_directions
from edit3dgs_ns.evaluation.video import VideoWriter
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.tracking.parallel import in_threads, one_thread_an_operation

MESH_COLOR = np.array([120, 190, 255.0])
LANDMARK_COLOR = (255, 60, 60)
OPACITY = 0.6
CAST_SIZE = 256
"""Pixels of the side at which the mesh is drawn before it is scaled up."""


def draw_preview(
    path: Path,
    head: FlameAssets,
    motion: FlameMotion,
    camera: Camera,
    images: Sequence[Path],
    landmarks: Float[np.ndarray, "T L 2"],
    fps: float,
    progress: Callable[[str, int, int], None],
) -> None:
    """Write the video: left the frames, right the same with mesh and landmarks."""
    shaped = FlameModel.from_assets(head).shaped(motion.shape, motion.static_offset)

    def drawn(t: int) -> UInt8[np.ndarray, "h w2 3"]:
        pixels = cv2.cvtColor(cv2.imread(str(images[t])), cv2.COLOR_BGR2RGB)
        with torch.no_grad():
            vertices = shaped.posed(motion.pose(slice(t, t + 1)))[0].numpy()
        return np.concatenate([pixels, overlay(pixels, vertices, head.faces, camera, landmarks[t])], axis=1)

    with one_thread_an_operation(), VideoWriter(path, fps) as video:
        for t, picture in enumerate(in_threads(drawn, range(len(images)))):
            video.add(picture)
            progress("Drawing tracking.mp4", t + 1, len(images))


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    camera: Camera,
    landmarks: Float[np.ndarray, "L 2"],
) -> UInt8[np.ndarray, "h w 3"]:
    """The image with the mesh, lit from the camera, blended over it, and a dot for each landmark."""
    small = min(CAST_SIZE, image.shape[1])
    shade, hit = _mesh_shading(vertices, faces, camera, small)
    size = (image.shape[1], image.shape[0])
    shade = cv2.resize(shade, size, interpolation=cv2.INTER_LINEAR)[..., None]
    share = OPACITY * cv2.resize(hit.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)[..., None]
    blended = np.rint(image * (1 - share) + MESH_COLOR * shade * share).astype(np.uint8)
    shift = 4
    for x, y in np.rint(landmarks * 2**shift).astype(int):
        cv2.circle(blended, (int(x), int(y)), 2**shift, LANDMARK_COLOR, -1, cv2.LINE_AA, shift)
    return blended


def _mesh_shading(
    vertices: np.ndarray, faces: np.ndarray, camera: Camera, size: int
) -> tuple[Float[np.ndarray, "size size"], Bool[np.ndarray, "size size"]]:
    """Cosine between normal and line of sight, and where the mesh is."""
    directions = ray_directions(camera.resized(size, size), (0, 0, size, size), 1)
    origins = np.broadcast_to(camera.c2w[:3, 3].astype(np.float32), directions.shape).copy()
    face = build_intersector(vertices, faces).run(origins, directions, output=1)["primID"]
    corners = vertices[faces[face]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    cosine = np.abs((normals * directions).sum(1)) / np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
    hit = face >= 0
    shade = np.where(hit, 0.25 + 0.75 * cosine, 0).astype(np.float32)
    return shade.reshape(size, size), hit.reshape(size, size)
