"""Renders of many people, poses and expressions, with the landmarks that MediaPipe finds in them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from edit3dgs_ns.capture.cameras import Camera, intrinsics, look_at
from edit3dgs_ns.synthetic.identity import random_identity
from edit3dgs_ns.synthetic.motion import FACES, face
from edit3dgs_ns.synthetic.scene import Scene
from edit3dgs_ns.synthetic.settings import EXTENT, TARGET

FIRST_SEED = 1000
"""People of the table; figures are measured on others."""
SIZE = 256
"""Pixels of a render's side."""
PASSES = 3
"""Of the detector over one render: in a video its crop comes from the landmarks before, which shifts them by a millimetre."""


@dataclass(frozen=True)
class Detection:
    """One render."""

    landmarks: Float[np.ndarray, "478 2"]
    """Pixels."""
    vertices: Float[np.ndarray, "V 3"]
    """Of the head in it, world space, metres."""
    head_R: Float[np.ndarray, "3 3"]
    """World from head: its own rotation and the neck's."""
    face: Float[np.ndarray, " K"]
    """Shape, expression and the sine of the jaw's opening: the columns of `LandmarkTable.by_face`."""
    camera: Camera


def collect(people: int, views: int, workers: int) -> list[Detection]:
    """Render `views` poses of each of `people` and detect; renders without a face are left out."""
    seeds = range(FIRST_SEED, FIRST_SEED + people)
    if workers == 1:
        return [d for seed in seeds for d in _detections(seed, views)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        parts: Iterable[list[Detection]] = pool.map(_detections, seeds, [views] * people)
        return [d for part in parts for d in part]


def _detections(seed: int, views: int) -> list[Detection]:
    import torch

    from edit3dgs_ns.tracking.detector import FaceDetector

    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    identity = random_identity(seed)
    found = []
    for _ in range(views):
        frame = _random_frame(identity.head, rng)
        camera = _random_camera(rng)
        scene = Scene(identity, frame)
        hits = scene.trace(camera.c2w, camera.K, SIZE, SIZE, samples_per_pixel=2)
        rgb = np.rint(hits.shade(identity.appearance).rgb * 255).astype(np.uint8)
        with FaceDetector() as detector:  # a new one: no crop from another pose
            for _ in range(PASSES):
                landmarks = detector.detect(rgb)
        if landmarks is not None:
            turn = Rotation.from_rotvec(frame.rotation) * Rotation.from_rotvec(frame.neck_pose)
            face = np.concatenate([identity.shape, frame.expr, np.sin(frame.jaw_pose[:1])])
            found.append(Detection(landmarks, scene.head_vertices, turn.as_matrix(), face, camera))
    return found


def _random_frame(head, rng: np.random.Generator):
    """Two of the acted faces, each at a random strength and often absent; gaze and neck turned."""
    amounts: dict[str, float] = {}
    for name in rng.choice(list(FACES), 2, replace=False):
        strength = rng.uniform() * (rng.random() > 0.3)
        for action, amount in FACES[name].items():
            amounts[action] = min(1.0, amounts.get(action, 0.0) + strength * amount)
    jaw = min(amounts.pop("jaw", 0.0), 0.4)
    gaze = (rng.uniform(-0.25, 0.25), rng.uniform(-0.4, 0.4))
    neck = rng.uniform(-0.1, 0.1, 3) * (1.0, 1.5, 0.8)
    return face(head, amounts, jaw=jaw, gaze=gaze, neck=neck)


def _random_camera(rng: np.random.Generator) -> Camera:
    azimuth, elevation = np.radians(rng.uniform(-40, 40)), np.radians(rng.uniform(-22, 24))
    direction = (np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation))
    distance = rng.uniform(0.5, 1.2)
    target = np.array(TARGET) + rng.uniform(-0.02, 0.02, 3)
    c2w = look_at(target + distance * np.array(direction), target, rng.uniform(-0.2, 0.2))
    return Camera(c2w, intrinsics(SIZE, SIZE, distance, EXTENT), SIZE, SIZE)
