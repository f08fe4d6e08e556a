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


def spoken(frames: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Its true jaw pose (3) and expression (E) in each frame."""
    replay, sequence = _speaker(frames, size)
    return [(frame.jaw_pose, frame.expr) for frame in replay.motion[sequence][:frames]]


def _speaker(frames: int, size: int) -> tuple[Replay, str]:
    replay = Replay(CaptureSettings(seed=5, width=size, height=size, cameras=1, frames=frames, samples=2))
    (sequence,) = [name for name in replay.motion if "SEN" in name]
    return replay, sequence
