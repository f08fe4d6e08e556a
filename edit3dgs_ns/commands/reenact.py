"""The command `edit3dgs reenact`: an avatar driven by somebody's motion, as a video and as a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edit3dgs_ns.commands.options import (
    NO_SCENE,
    InScene,
    check_motion,
    check_positive,
    check_scene,
    check_video,
)
from edit3dgs_ns.console import progress_bars, say, say_command, working
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.runs.run_files import find_config, video_path

_PLACES = ("front", "sway", "capture")


@dataclass(kw_only=True)
class ReenactCommand:
    """Drive an avatar by somebody's motion: a video, and a run that plays it in ns-viewer and ns-render.

    The avatar keeps its own shape and takes expression, jaw, eyes and neck.
    """

    load_config: Path
    """The avatar's config.yml."""
    motion: Path
    """A video, which is tracked first; a capture's folder; a flame_param.npz; VHAP's tracked_flame_params_*.npz; the
    NeRSemble benchmark's flame2023_tracking_v2.npz; an npz, npy or pkl of DECA or EMOCA, or a folder of their single frames;
    a CSV (Live Link Face) or JSON of ARKit coefficients."""
    cameras: str = "front"
    """`front`: the held-out camera. `sway`: the same, swinging to both sides. `capture`: all cameras of the capture, in a
    grid. Or a camera path that ns-viewer has saved (json), with a render_time for every camera."""
    output: Path | None = None
    """The video (mp4). Default: renders/reenact-NAME.mp4 in the avatar's run, NAME as for --run-name."""
    head_pose: Literal["still", "relative", "absolute"] = "still"
    """`still`: the head stays. `relative`: it moves as the driver's does about its mean place. `absolute`: it is where the
    driver's is."""
    neutral: Literal["zero", "median", "calm"] | None = None
    """`zero`: expressions as recorded. `median`: relative to each person's resting face, the median over the motion, for
    drivers whose resting face is not the head model's. `calm`: relative to each person's calmest frames, by no more than
    faces at rest differ. Default: `calm` for a video, else `zero`."""
    neutral_frame: int | None = None
    """With --neutral median: the driver's resting face is this frame."""
    calibrate: bool = True
    """Of a video: lids and lips open as far as the driver's, whose own open and closed eyes and mouth are learned from the
    whole video; --no-calibrate takes them as they were fitted."""
    smooth: float = 0.0
    """Average over time: a Gaussian with this standard deviation in frames of the motion."""
    speed: float = 1.0
    """2 plays twice as fast."""
    fps: float | None = None
    """Frames per second of the video. Default: as the motion's."""
    motion_fps: float | None = None
    """Frames per second of the motion. Default: what its file says, else 25."""
    motion_part: Literal["all", "train", "val", "test"] = "all"
    """Of a capture: only the timesteps of this split (`test`: the sequence not trained on)."""
    scale: float = 1.0
    """Pixels a side, relative to the cameras'."""
    driver: bool = True
    """The driver's own images stand at the left, where there are any; --no-driver leaves them out."""
    beside: Path | None = None
    """config.yml of another avatar to show beside: the one before the edit, for example."""
    run_name: str | None = None
    """End of the new run's name. Default: the motion's."""
    overwrite: bool = False
    """Replace a video and a run of this name that are there."""
    scene: InScene = NO_SCENE
    """The scene around the avatar."""

    def execute(self) -> int:
        """Writes the run and the video."""
        check_positive(fps=self.fps, motion_fps=self.motion_fps, speed=self.speed, scale=self.scale)
        check_video(fps=self.fps, scale=self.scale)
        config = find_config(self.load_config)
        beside = None if self.beside is None else find_config(self.beside, "--beside")
        self._check_files(config)
        with progress_bars() as progress:
            with working(progress, "Loading PyTorch and Nerfstudio"):
                from edit3dgs_ns.flame.retarget import RetargetOptions
                from edit3dgs_ns.rendering.reenactment import Pace, ReenactmentSettings, reenact
            settings = ReenactmentSettings(
                cameras=self.cameras,
                part=self.motion_part,
                retarget=RetargetOptions(
                    self.head_pose, self.neutral, self.neutral_frame, self.smooth, self.calibrate
                ),
                pace=Pace(self.fps, self.motion_fps, self.speed),
                scale=self.scale,
                show_driver=self.driver,
                beside=beside,
                scene=self.scene,
                overwrite=self.overwrite,
            )
            made = reenact(config, self.motion, self.output, settings, self.run_name, progress)
        for note in made.notes:
            say(note)
        say(f"Wrote {made.video}")
        say("The motion as a run of its own:")
        say_command("ns-viewer", "--load-config", made.config)
        return 0

    def _check_files(self, config: Path) -> None:
        check_motion(self.motion)
        if self.cameras not in _PLACES and not Path(self.cameras).is_file():
            raise UserError(
                f"--cameras {self.cameras}: no such file. Expected {', '.join(_PLACES)}, or a camera path (json) that ns-viewer "
                "has saved."
            )
        if self.run_name is not None and (
            self.run_name in ("", ".", "..") or Path(self.run_name).name != self.run_name
        ):
            raise UserError(f"--run-name {self.run_name!r}: expected a part of a folder's name, without '/'.")
        if self.output is not None or self.run_name is not None:
            video_path(config, f"reenact-{self.run_name}", self.output, self.overwrite)
        check_scene(self.scene)
