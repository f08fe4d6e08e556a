"""A video of a rendered person who speaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edit3dgs_ns.evaluation.video import VideoWriter
from edit3dgs_ns.synthetic.replay import Replay
from edit3dgs_ns.synthetic.settings import CaptureSettings


def write_speaking_video(path: Path, frames: int = 10, size: int = 160, fps: float = 12.0) -> Path:
    """Frames of the front camera of person 5."""
    replay, sequence = _speaker(frames, size)
    (camera,) = replay.cameras
    with VideoWriter(path, fps) as video:
        for t in range(frames):
            video.add(np.rint(255 * replay.render(sequence, t, camera).rgb).astype(np.uint8))
    return path


def write_leaving_video(path: Path, frames: int = 30, size: int = 160, fps: float = 12.0) -> Path:
    """The same person, who leaves the frame to the right in its second quarter and comes back in its last but one."""
    replay, sequence = _speaker(frames, size)
    (camera,) = replay.cameras
    away = np.interp(np.linspace(0, 4, frames), [0, 1, 1.6, 2.4, 3, 4], [0, 0, size, size, 0, 0])
    with VideoWriter(path, fps) as video:
        for t in range(frames):
            image = np.rint(255 * replay.render(sequence, t, camera).rgb).astype(np.uint8)
            video.add(moved_right(image, round(away[t])))
    return path


def moved_right(image: np.ndarray, pixels: int) -> np.ndarray:
    """An image on white, moved beyond its right edge."""
    moved = np.full_like(image, 255)
    moved[:, pixels:] = image[:, : image.shape[1] - pixels]
    return moved


def spoken(frames: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Its true jaw pose (3) and expression (E) in each frame."""
    replay, sequence = _speaker(frames, size)
    return [(frame.jaw_pose, frame.expr) for frame in replay.motion[sequence][:frames]]


def _speaker(frames: int, size: int) -> tuple[Replay, str]:
    replay = Replay(CaptureSettings(seed=5, width=size, height=size, cameras=1, frames=frames, samples=2))
    (sequence,) = [name for name in replay.motion if "SEN" in name]
    return replay, sequence
