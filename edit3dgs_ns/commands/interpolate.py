"""The command `edit3dgs interpolate`: a video from image to image of a split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edit3dgs_ns.commands.options import NO_SCENE, InScene, check_positive, check_scene, check_video, open_run
from edit3dgs_ns.console import progress_bars, say
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.runs.run_files import find_config, video_path


@dataclass(kw_only=True)
class InterpolateCommand:
    """Render a video of the avatar from image to image of a split, through camera poses and times alike.

    `ns-render interpolate` goes the same way, but drops the times, so that the avatar stands still.
    """

    load_config: Path
    """The avatar's config.yml."""
    output: Path | None = None
    """The video (mp4). Default: renders/interpolate-SPLIT.mp4 in the run's folder."""
    split: Literal["train", "val", "test"] | None = None
    """`val`: the held-out camera; `test`: the sequence not trained on; `train`: the training images. Default: `val`, or
    `train` for a capture of one camera, which holds none out."""
    steps: int = 10
    """Frames from each image to the next."""
    fps: float = 25.0
    """Frames per second."""
    scale: float = 1.0
    """Pixels a side, relative to the capture's."""
    overwrite: bool = False
    """Replace a video that is there."""
    scene: InScene = NO_SCENE
    """The scene around the avatar."""

    def execute(self) -> int:
        """Renders the video."""
        check_positive(fps=self.fps, scale=self.scale)
        check_video(frames=self.steps, fps=self.fps, scale=self.scale, frames_options="--steps")
        if self.steps < 2:
            raise UserError(f"--steps {self.steps}: expected at least 2, the image itself and one after it.")
        config = find_config(self.load_config)
        output = video_path(config, f"interpolate-{self.split or 'val'}", self.output, self.overwrite)
        check_scene(self.scene)
        with progress_bars() as progress:
            run = open_run(config, self.scene, progress)
            from edit3dgs_ns.rendering.trajectories import between
            from edit3dgs_ns.rendering.videos import render_video

            split = self.split or "val"
            if self.split is None and len(run.split("val")) < 2:
                split = "train"
                output = video_path(config, f"interpolate-{split}", self.output, self.overwrite)
                say("The capture holds no camera out: from training image to training image (--split train).")
            cameras = run.split(split).cameras
            check_video(frames=len(cameras) * self.steps, frames_options="--steps")
            trajectory = between(cameras, self.steps).scaled(self.scale)
            render_video(output, [run], trajectory, fps=self.fps, progress=progress)
        say(f"Wrote {output}")
        return 0
