"""The picture of tracking in the documentation: frames of a video, the head that was found in them, and the avatar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from edit3dgs_ns.evaluation.comparison_grid import Column, Row, draw_comparison_grid
from edit3dgs_ns.evaluation.image_layout import resized
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.tracking.video import describe_video, read_frames

if TYPE_CHECKING:
    from edit3dgs_ns.runs.trained_run import TrainedRun

SHARES = (0.1, 0.27, 0.49, 0.7, 0.84, 0.97)
"""Of the clip, where the columns are."""
ROWS = (
    Row("A video", "of one camera"),
    Row("Tracked", "the open head in it"),
    Row("The avatar", "trained on it"),
)
CELL = 192


def draw_tracking_picture(preview: Path, config: Path, out: Path) -> None:
    """Draws the picture.

    Args:
        preview: `tracking.mp4` of a capture.
        config: config.yml of the avatar trained on it.
        out: the PNG.
    """
    from edit3dgs_ns.runs.trained_run import TrainedRun

    info = describe_video(preview)
    frames = list(read_frames(info))
    chosen = [round(share * (len(frames) - 1)) for share in SHARES]
    renders, first_held_out = _renders(TrainedRun(config), chosen)
    columns = []
    for t, render in zip(chosen, renders, strict=True):
        image, overlay = _halves(frames[t], len(render))
        group = "in the training images" if t < first_held_out else "held out"
        columns.append(Column(f"{t / info.fps:.1f} s", (image, overlay, render), group))
    with written_beside(out) as partial:
        draw_comparison_grid(columns, ROWS, CELL).save(partial, format="png")


def _renders(run: TrainedRun, timesteps: Sequence[int]) -> tuple[list[Float[np.ndarray, "size size 3"]], int]:
    """The avatar in these frames of its own clip, and the first frame that is held out."""
    splits = [run.split(name) for name in ("train", "test")]
    first_held_out = len(splits[0])
    cameras = [split.cameras[i : i + 1] for split in splits for i in range(len(split))]
    return [run.render(cameras[t]).rgb for t in timesteps], first_held_out


def _halves(frame: UInt8[np.ndarray, "height width 3"], size: int) -> list[Float[np.ndarray, "size size 3"]]:
    """Left and right of a frame of the preview, as large as the renders, in [0, 1]."""
    return [resized(half, size).astype(np.float32) / 255 for half in np.split(frame, 2, axis=1)]
