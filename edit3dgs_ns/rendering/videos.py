"""Videos of avatars: what is rendered is encoded on another thread, while the next frame is being rendered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from rich.progress import Progress

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.evaluation.image_layout import resized, side_by_side, tiled, title_bar, to_uint8
from edit3dgs_ns.evaluation.video import OverlappedWriter, VideoWriter
from edit3dgs_ns.rendering.trajectories import Trajectory


class Shown(Protocol):
    """An avatar, such as a TrainedRun."""

    def colours(self, cameras: Cameras) -> Float[np.ndarray, "views height width 3"]:
        """What cameras of one size and one time see, on white, in [0, 1]."""


class DriverFrames(Protocol):
    """Images to show beside the renders, by frame of the video."""

    def __getitem__(self, frame: int) -> UInt8[np.ndarray, "height width 3"]:
        """The image for a frame of the video."""


def render_video(
    path: Path,
    runs: Sequence[Shown],
    trajectory: Trajectory,
    *,
    fps: float,
    titles: Sequence[str] = (),
    driver: DriverFrames | None = None,
    progress: Progress,
    description: str = "Rendering",
) -> None:
    """Writes a video, of which there is all or nothing.

    Args:
        path: the mp4.
        runs: avatars, side by side, all seen by the same cameras.
        trajectory: cameras and timesteps.
        fps: frames per second.
        titles: one over each of the images in a row (the driver's first); none for no header.
        driver: shown at the left.
        progress: shows how far it is.
        description: what `progress` calls it.
    """
    if not len(trajectory):
        raise UserError(f"{path}: a video without frames.")
    size = video_size(trajectory, fps)
    strip: list[UInt8[np.ndarray, "height width 3"]] = []

    def draw(item: tuple[int, list[Float[np.ndarray, "views height width 3"]]]) -> UInt8[np.ndarray, "_ _ 3"]:
        number, renders = item
        panels = [tiled([to_uint8(view) for view in views]) for views in renders]
        if driver is not None:
            panels.insert(0, resized(driver[number], len(panels[0])))
        if titles and not strip:
            strip.append(title_bar(titles, [panel.shape[1] for panel in panels]))
        return np.concatenate([*strip, side_by_side(panels, len(panels[0]))], axis=0)

    with VideoWriter(path, fps) as video, OverlappedWriter(video, draw) as frames:
        for number in progress.track(range(len(trajectory)), description=f"{description} {size}"):
            cameras = trajectory.at(number)
            frames.add((number, [run.colours(cameras) for run in runs]))


def video_size(trajectory: Trajectory, fps: float) -> str:
    """Returns how long a video is, in words: `710 frames of 256 x 256 (28.4 s at 25 fps)`."""
    frames = len(trajectory)
    width, height = int(trajectory.cameras.width.flatten()[0]), int(trajectory.cameras.height.flatten()[0])
    views = f"{trajectory.views} views of " if trajectory.views > 1 else ""
    return f"{frames} frames of {views}{width} x {height} ({frames / fps:.1f} s at {fps:g} fps)"
