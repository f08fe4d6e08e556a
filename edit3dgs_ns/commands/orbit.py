"""The command `edit3dgs orbit`: a video of the avatar from all sides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edit3dgs_ns.commands.options import (
    NO_SCENE,
    InScene,
    check_positive,
    check_scene,
    check_time,
    check_video,
    open_run,
)
from edit3dgs_ns.console import progress_bars, say
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.runs.run_files import find_config, video_path


@dataclass(kw_only=True)
class OrbitCommand:
    """Render a video of the avatar from all sides that its capture shows, while it goes through its motion."""

    load_config: Path
    """The avatar's config.yml, or that of a run that `edit3dgs reenact` has made."""
    output: Path | None = None
    """The video (mp4). Default: renders/orbit.mp4 in the run's folder."""
    seconds: float = 6.0
    """How long one turn takes."""
    fps: float = 25.0
    """Frames per second."""
    degrees: float | None = None
    """How far the camera goes: 360 is around, less to both sides and back. Default: as far as the capture's cameras stand;
    behind them the avatar has learnt nothing."""
    time: float | None = None
    """Stand still at this normalised time, from 0 (start of the motion) to 1 (its end)."""
    scale: float = 1.0
    """Pixels a side, relative to the capture's."""
    overwrite: bool = False
    """Replace a video that is there."""
    scene: InScene = NO_SCENE
    """The scene around the avatar."""

    def execute(self) -> int:
        """Renders the video."""
        check_time(None, self.time)
        check_positive(seconds=self.seconds, fps=self.fps, scale=self.scale)
        check_video(frames=self.seconds * self.fps, fps=self.fps, scale=self.scale)
        if self.degrees is not None and not 1 <= self.degrees <= 360:
            raise UserError(f"--degrees {self.degrees}: expected an angle from 1 to 360.")
        config = find_config(self.load_config)
        output = video_path(config, "orbit", self.output, self.overwrite)
        check_scene(self.scene)
        with progress_bars() as progress:
            run = open_run(config, self.scene, progress)
            import numpy as np

            from edit3dgs_ns.rendering.trajectories import turntable
            from edit3dgs_ns.rendering.videos import render_video

            count = max(2, round(self.seconds * self.fps))
            times = np.linspace(0, 1, count) if self.time is None else np.full(count, self.time)
            trajectory = turntable(run, times, self.degrees).scaled(self.scale)
            render_video(output, [run], trajectory, fps=self.fps, progress=progress)
        say(f"Wrote {output}")
        return 0
