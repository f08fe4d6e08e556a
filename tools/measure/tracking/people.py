"""Synthetic people filmed by one camera: a video for the tracker, and the truth about every frame.

The person acts the sequence EMO-1 of `edit3dgs capture --cameras 1`: expressions and blinks, with a moving head.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.evaluation.image_layout import to_uint8
from edit3dgs_ns.evaluation.video import VideoWriter
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.synthetic.replay import Replay
from edit3dgs_ns.synthetic.settings import CaptureSettings

SEEDS = (3, 5, 7, 12)
"""People who took no part in making the landmark table."""
FRAMES, FPS = 100, 12.5
"""Of the video: the first eight seconds of the sequence, whose twelve have `ACTED` frames."""
ACTED = 150
SAMPLES = 3
"""Rays through each pixel."""


@dataclass(frozen=True)
class Person:
    """One person in one resolution."""

    seed: int
    size: int
    """Side of the video's square frames in pixels."""

    @property
    def settings(self) -> CaptureSettings:
        """Of the capture whose first sequence this is."""
        return CaptureSettings(self.seed, self.size, self.size, cameras=1, frames=ACTED, samples=SAMPLES)

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"person_{self.seed:03d}_{self.size}"


@dataclass(frozen=True)
class Truth:
    """What the video shows."""

    head: FlameAssets
    motion: FlameMotion
    camera: Camera


def truth_of(person: Person) -> Truth:
    """The parameters of every frame and the camera."""
    replay = _replay(person)
    frames = replay.motion[_sequence(replay)][:FRAMES]
    rows = {
        name: torch.from_numpy(np.stack([getattr(frame, name) for frame in frames])).float()
        for name in ("expr", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation")
    }
    identity = replay.identity
    motion = FlameMotion(
        shape=torch.from_numpy(identity.shape).float(),
        static_offset=torch.from_numpy(np.asarray(identity.static_offset, np.float32)),
        **rows,
    )
    (camera,) = replay.cameras.values()
    return Truth(identity.head.assets, motion, camera)


def write_video(person: Person, path: Path) -> None:
    """Render the sequence as an mp4, one process per core."""
    context = get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context) as pool, VideoWriter(path, FPS) as writer:
        for image in pool.map(_render, [person] * FRAMES, range(FRAMES), chunksize=5):
            writer.add(image)


def render_from(person: Person, timestep: int, camera: Camera) -> Float[np.ndarray, "height width 3"]:
    """The true image of a timestep from any camera, on white, in [0, 1]."""
    from edit3dgs_ns.synthetic.scene import Scene

    replay = _replay(person)
    scene = Scene(replay.identity, replay.motion[_sequence(replay)][timestep])
    seen = scene.trace(camera.c2w, camera.K, camera.width, camera.height, SAMPLES)
    return seen.shade(replay.identity.appearance).rgb


def _render(person: Person, timestep: int) -> np.ndarray:
    torch.set_num_threads(1)
    replay = _replay(person)
    (camera,) = replay.cameras
    return to_uint8(replay.render(_sequence(replay), timestep, camera).rgb)


@lru_cache(maxsize=1)
def _replay(person: Person) -> Replay:
    return Replay(person.settings)


def _sequence(replay: Replay) -> str:
    return next(iter(replay.motion))
