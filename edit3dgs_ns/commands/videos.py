"""The commands that make videos, `edit3dgs reenact`, `orbit` and `interpolate`: their options, and what they print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.runs.scene_options import SceneOptions

if TYPE_CHECKING:
    from edit3dgs_ns.rendering.trajectories import Trajectory
    from edit3dgs_ns.runs.trained_run import TrainedRun

InScene = Annotated[SceneOptions, tyro.conf.arg(name="")]
"""Options without a prefix: --background, --background-transform."""
NO_SCENE = SceneOptions()


def reenact_command(
    *,
    load_config: Path,
    motion: Path,
    cameras: str = "front",
    output: Path = Path("reenactment.mp4"),
    head_pose: Literal["still", "relative", "absolute"] = "still",
    neutral: Literal["zero", "median"] = "zero",
    neutral_frame: int | None = None,
    smooth: float = 0.0,
    speed: float = 1.0,
    fps: float | None = None,
    motion_fps: float | None = None,
    motion_part: Literal["all", "train", "val", "test"] = "all",
    scale: float = 1.0,
    driver: bool = True,
    beside: Path | None = None,
    scene: InScene = NO_SCENE,
    run_name: str | None = None,
) -> int:
    """Drive an avatar by somebody's motion: a video, and a run that plays it in ns-viewer and ns-render.

    The avatar keeps its own shape and takes expression, jaw, eyes and neck.

    Args:
        load_config: The avatar's config.yml.
        motion: A capture's folder; a flame_param.npz; VHAP's tracked_flame_params_*.npz; the NeRSemble benchmark's
            flame2023_tracking_v2.npz; for avatars of the open head also a CSV (Live Link Face) or JSON of ARKit coefficients.
        cameras: `front`: the held-out camera. `sway`: the same, swinging to both sides. `capture`: all cameras of the
            capture, in a grid. Or a camera path that ns-viewer has saved (json), with a render_time for every camera.
        output: The video (mp4).
        head_pose: `still`: the head stays. `relative`: it moves as the driver's does about its mean place. `absolute`: it is
            where the driver's is.
        neutral: `zero`: expressions as recorded. `median`: relative to each person's resting face, for drivers whose
            resting face is not the head model's.
        neutral_frame: With --neutral median: the driver's resting face is this frame.
        smooth: Average over time: a Gaussian with this standard deviation in frames of the motion.
        speed: 2 plays twice as fast.
        fps: Frames per second of the video. Default: as the motion's.
        motion_fps: Frames per second of the motion. Default: what its file says, else 25.
        motion_part: Of a capture: only the timesteps of this split (`test`: the sequence not trained on).
        scale: Pixels a side, relative to the cameras'.
        driver: The driver's own pictures stand at the left, where there are any; --no-driver leaves them out.
        beside: config.yml of another avatar to show beside: the one before the edit, for example.
        scene: The scene around the avatar.
        run_name: End of the new run's name. Default: the motion's.
    """
    from edit3dgs_ns.console import CONSOLE
    from edit3dgs_ns.flame.retarget import RetargetOptions
    from edit3dgs_ns.rendering.reenactment import Pace, ReenactmentSettings, reenact

    settings = ReenactmentSettings(
        cameras=cameras,
        part=motion_part,
        retarget=RetargetOptions(head_pose, neutral, neutral_frame, smooth),
        pace=Pace(fps, motion_fps, speed),
        scale=scale,
        show_driver=driver,
        beside=beside,
        scene=scene,
    )
    config, notes = reenact(load_config, motion, output, settings, run_name)
    for note in notes:
        CONSOLE.print(note, highlight=False, soft_wrap=True, markup=False)
    CONSOLE.print(f"Wrote {output}", highlight=False, soft_wrap=True, markup=False)
    CONSOLE.print("The motion as a run of its own:", highlight=False)
    CONSOLE.print(f"  ns-viewer --load-config {config}", highlight=False, soft_wrap=True, markup=False)
    return 0


def orbit_command(
    *,
    load_config: Path,
    output: Path = Path("orbit.mp4"),
    seconds: float = 6.0,
    fps: float = 25.0,
    degrees: float | None = None,
    time: float | None = None,
    scale: float = 1.0,
    scene: InScene = NO_SCENE,
) -> int:
    """Film the avatar from all sides that its capture shows, while it goes through its motion.

    Args:
        load_config: The avatar's config.yml, or that of a run that `edit3dgs reenact` has made.
        output: The video (mp4).
        seconds: How long one turn takes.
        fps: Frames per second.
        degrees: How far the camera goes: 360 is around, less to both sides and back. Default: as far as the capture's cameras
            stand; behind them the avatar has learnt nothing.
        time: Stand still at this place on the motion, from 0 (start) to 1 (end).
        scale: Pixels a side, relative to the capture's.
        scene: The scene around the avatar.
    """
    from edit3dgs_ns.rendering.reenactment import check_video_path

    if time is not None and not 0 <= time <= 1:
        raise UserError(f"--time {time}: expected a place on the motion, 0 (start) to 1 (end).")
    for option, value in (("--seconds", seconds), ("--fps", fps)):
        if not 0 < value < float("inf"):
            raise UserError(f"{option} {value}: expected a positive number.")
    check_video_path(output)
    import numpy as np

    from edit3dgs_ns.rendering.trajectories import turntable

    run = _open(load_config, scene)
    count = max(2, round(seconds * fps))
    times = np.linspace(0, 1, count) if time is None else np.full(count, time)
    _film(output, run, turntable(run, times, degrees).scaled(scale), fps)
    return 0


def interpolate_command(
    *,
    load_config: Path,
    output: Path = Path("interpolated.mp4"),
    split: Literal["train", "val", "test"] = "val",
    steps: int = 10,
    fps: float = 25.0,
    scale: float = 1.0,
    scene: InScene = NO_SCENE,
) -> int:
    """Film the avatar from image to image of a split, through places and times alike.

    `ns-render interpolate` goes the same way, but drops the times, so that the avatar stands still.

    Args:
        load_config: The avatar's config.yml.
        output: The video (mp4).
        split: `val`: the held-out camera; `test`: the sequence not trained on; `train`: the training images.
        steps: Frames from each image to the next.
        fps: Frames per second.
        scale: Pixels a side, relative to the capture's.
        scene: The scene around the avatar.
    """
    from edit3dgs_ns.rendering.reenactment import check_video_path

    if not 0 < fps < float("inf"):
        raise UserError(f"--fps {fps}: expected a positive number.")
    check_video_path(output)
    from edit3dgs_ns.rendering.trajectories import between

    run = _open(load_config, scene)
    _film(output, run, between(run.split(split).cameras, steps).scaled(scale), fps)
    return 0


def _open(load_config: Path, scene: SceneOptions) -> TrainedRun:
    from edit3dgs_ns.console import CONSOLE
    from edit3dgs_ns.runs.backgrounds import read_background
    from edit3dgs_ns.runs.trained_run import TrainedRun

    backdrop = read_background(scene)
    run = TrainedRun(load_config)
    for note in run.stand_before(backdrop):
        CONSOLE.print(note, highlight=False, soft_wrap=True, markup=False)
    return run


def _film(output: Path, run: TrainedRun, trajectory: Trajectory, fps: float) -> None:
    from rich.progress import Progress

    from edit3dgs_ns.console import CONSOLE
    from edit3dgs_ns.rendering.videos import render_video

    with Progress(console=CONSOLE) as progress:
        render_video(
            output,
            [run],
            trajectory,
            fps=fps,
            progress=progress,
            description=f"Filming {len(trajectory)} frames",
        )
    CONSOLE.print(f"Wrote {output}", highlight=False, soft_wrap=True, markup=False)
