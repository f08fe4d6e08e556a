"""`edit3dgs reenact`: an avatar driven by somebody's motion, as a run of its own and as a video."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from rich.progress import Progress

from edit3dgs_ns.capture.driver import Driver, DriverImages, Part
from edit3dgs_ns.console import shown_on, working
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.retarget import RetargetOptions, frame_places
from edit3dgs_ns.rendering.trajectories import Trajectory, choose_trajectory, path_fps
from edit3dgs_ns.rendering.videos import render_video
from edit3dgs_ns.runs.backgrounds import read_background
from edit3dgs_ns.runs.derive import derived_folder, write_derived_run
from edit3dgs_ns.runs.run_files import video_path
from edit3dgs_ns.runs.scene_options import SceneOptions
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.tracking.driving import drive, open_driver

USUAL_FPS = 25.0
"""Of a motion whose file does not say it."""
PLACES = ("front", "sway", "capture")
"""What `--cameras` takes besides a file."""


@dataclass(frozen=True)
class Pace:
    """How fast a motion is played."""

    fps: float | None = None
    """Of the video; None: the motion's, or the camera path's."""
    motion_fps: float | None = None
    """Of the motion; None: what its file says, else 25."""
    speed: float = 1.0
    """2 plays twice as fast."""


@dataclass(frozen=True)
class ReenactmentSettings:
    """What is shown, and how."""

    cameras: str = "front"
    """`front`, `sway`, `capture` or a camera path (json)."""
    part: Part = "all"
    """Of a capture: the timesteps of a split."""
    retarget: RetargetOptions = field(default_factory=RetargetOptions)
    pace: Pace = field(default_factory=Pace)
    scale: float = 1.0
    """Pixels a side, relative to the cameras'."""
    show_driver: bool = True
    """The driver's images at the left, where there are any."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    """Drawn with the avatar."""
    beside: Path | None = None
    """config.yml of another avatar, which does the same between the driver and the avatar: the one before the edit, for example."""
    overwrite: bool = False
    """Replace a video and a run that are there."""


@dataclass(frozen=True)
class Reenactment:
    """What was written."""

    config: Path
    """config.yml of the run that plays the motion."""
    video: Path
    notes: tuple[str, ...]
    """What was mapped to what, for the user."""


@dataclass(frozen=True)
class FramesAt:
    """The driver's images by frame of the video."""

    images: DriverImages
    times: Float[np.ndarray, " frames"]
    """Normalised time of each frame, in [0, 1]."""

    def __getitem__(self, frame: int) -> UInt8[np.ndarray, "height width 3"]:
        """The image nearest to a frame of the video."""
        return self.images[round(float(self.times[frame]) * (len(self.images.images) - 1))]


def reenact(
    load_config: Path,
    motion: Path,
    output: Path | None,
    settings: ReenactmentSettings,
    run_name: str | None,
    progress: Progress,
) -> Reenactment:
    """Writes the run that plays a motion, and a video of it.

    Args:
        load_config: of the avatar.
        motion: whatever `open_driver` reads.
        output: the mp4; None for one in the avatar's run.
        settings: what is shown, and how.
        run_name: end of the new run's name; None: the motion's.
        progress: shows how far it is.

    Raises:
        FileNotFoundError, ValueError: something is missing, damaged or does not fit; before anything is rendered or written.
        FileExistsError: the video or the run is there already.
    """
    if settings.cameras not in PLACES:
        path_fps(Path(settings.cameras))
    backdrop = read_background(settings.scene)
    with working(progress, f"Opening {load_config.parent}"):
        run = TrainedRun(load_config)
    scene_notes = run.composite_over(backdrop)
    driver = open_driver(motion, run.head, settings.part, shown_on(progress))
    part = "" if settings.part == "all" else f"_{settings.part}"
    name = driver.name + part if run_name is None else run_name
    folder = derived_folder(load_config, name, settings.overwrite)
    video = video_path(load_config, f"reenact-{name}", output, settings.overwrite)
    played, notes = drive(
        driver.recorded, run.pipeline.model.head.motion().to("cpu"), run.head, settings.retarget
    )
    trajectory, fps = plan(run, driver, settings)
    images = driver.images if settings.show_driver else None
    if images is not None:
        images[0]  # one that cannot be read is noticed before anything is rendered
    notes = (*driver.recorded.notes, *notes, *scene_notes)
    record: dict[str, Any] = {"motion": str(driver.recorded.source), "frames": len(played), "notes": notes}
    others = [] if settings.beside is None else [_other(settings.beside, driver, settings.retarget)]
    for other in others:
        other.composite_over(run.backdrop)
    config = write_derived_run(load_config, folder, played, {**record, **asdict(settings.retarget)}, backdrop)
    run.play(played)
    names = [_title(path) for path in (settings.beside, load_config) if path is not None]
    titles = ([] if images is None else ["driver"]) + (names if len(names) > 1 else ["avatar"])
    render_video(
        video,
        [*others, run],
        trajectory,
        fps=fps,
        titles=titles if len(titles) > 1 else (),
        driver=None if images is None else FramesAt(images, trajectory.times),
        progress=progress,
    )
    return Reenactment(config, video, notes)


def _other(load_config: Path, driver: Driver, options: RetargetOptions) -> TrainedRun:
    """Another avatar that plays the same motion, with its own shape and resting face."""
    run = TrainedRun(load_config)
    run.play(drive(driver.recorded, run.pipeline.model.head.motion().to("cpu"), run.head, options)[0])
    return run


def _title(load_config: Path) -> str:
    """What a run is called: its experiment (EXPERIMENT/METHOD/DATE/config.yml)."""
    parents = Path(os.path.abspath(load_config)).parents
    return parents[2].name if len(parents) > 3 else parents[0].name


def plan(run: TrainedRun, driver: Driver, settings: ReenactmentSettings) -> tuple[Trajectory, float]:
    """Cameras and timesteps of the video, and its frames per second.

    Raises:
        FileNotFoundError, ValueError: a camera path or a rate that will not do.
    """
    pace, recorded = settings.pace, driver.recorded
    motion_fps = pace.motion_fps or recorded.fps or USUAL_FPS
    if settings.cameras in PLACES:
        fps = pace.fps or motion_fps
        times = frame_places(len(recorded.motion), motion_fps, fps, pace.speed)
        return choose_trajectory(run, settings.cameras, times).scaled(settings.scale), fps
    if pace.speed != 1.0 or pace.motion_fps is not None:
        raise UserError(
            f"--cameras {settings.cameras}: a camera path says itself which time each of its cameras sees. Leave out --speed and "
            "--motion-fps."
        )
    trajectory = choose_trajectory(run, settings.cameras, np.zeros(0)).scaled(settings.scale)
    return trajectory, pace.fps or path_fps(Path(settings.cameras)) or USUAL_FPS
