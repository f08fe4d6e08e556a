"""Options and checks that several commands share. Imports nothing heavy: `edit3dgs --help` reads it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from edit3dgs_ns.console import say, working
from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.flame.known_motions import MOST_FRAMES, check_motion_name
from edit3dgs_ns.runs.scene_options import SceneOptions

if TYPE_CHECKING:
    from rich.progress import Progress

    from edit3dgs_ns.runs.trained_run import TrainedRun

InScene = Annotated[SceneOptions, tyro.conf.arg(name="")]
"""Options without a prefix: --background, --background-transform."""
NO_SCENE = SceneOptions()
LEAST_FPS, MOST_FPS = 0.1, 240.0
LEAST_SCALE, MOST_SCALE = 0.1, 16.0


def check_positive(**options: float | None) -> None:
    """Raises a ValueError for a number that is given and not positive; options by the names of their flags."""
    for name, value in options.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"--{name.replace('_', '-')} {value}: expected a positive number.")


def check_video(
    *,
    frames: float | None = None,
    fps: float | None = None,
    scale: float | None = None,
    frames_options: str = "--seconds and --fps",
) -> None:
    """Raises a ValueError for a video that is too long or too large to be meant; only what is given is checked.

    Args:
        frames: of the video.
        fps: frames per second.
        scale: pixels a side, relative to the capture's.
        frames_options: what `frames` follows from, for the message.
    """
    if fps is not None and not LEAST_FPS <= fps <= MOST_FPS:
        raise UserError(f"--fps {fps:g}: expected {LEAST_FPS:g} to {MOST_FPS:g} frames per second.")
    if scale is not None and not LEAST_SCALE <= scale <= MOST_SCALE:
        raise UserError(
            f"--scale {scale:g}: expected {LEAST_SCALE:g} to {MOST_SCALE:g} times the capture's pixels a side."
        )
    if frames is not None and not frames <= MOST_FRAMES:
        raise UserError(
            f"{frames_options}: {frames:.3g} frames; a video has at most {MOST_FRAMES:,}. Make it shorter."
        )


def check_time(timestep: int | None, time: float | None) -> None:
    """Raises a ValueError for a timestep and a normalised time of which both are given, or one is out of range."""
    if timestep is not None and time is not None:
        raise UserError(f"--timestep {timestep} and --time {time}: give one of them.")
    if timestep is not None and timestep < 0:
        raise UserError(f"--timestep {timestep}: expected 0 or more.")
    if time is not None and not 0 <= time <= 1:
        raise UserError(f"--time {time}: expected a normalised time, 0 (start) to 1 (end).")


def check_there(option: str, path: Path | None, expected: str) -> None:
    """Raises a FileNotFoundError for a path that is given and not there."""
    if path is not None and not Path(path).expanduser().exists():
        raise MissingFileError(f"{option} {path}: no such file or folder. {expected}")


def check_motion(motion: Path | None) -> None:
    """Raises a ValueError or FileNotFoundError for a `--motion` that is given and cannot be one; loads no PyTorch."""
    if motion is None:
        return
    from edit3dgs_ns.tracking.driving import is_video

    motion = motion.expanduser()
    if not is_video(motion):
        check_motion_name(motion)
        return
    from edit3dgs_ns.tracking.video import describe_video

    describe_video(motion)


def check_scene(scene: SceneOptions) -> None:
    """Raises a FileNotFoundError for files of a scene that are not there."""
    check_there(
        "--background", scene.background, "Expected a run of `ns-train splatfacto`, or a splat (.ply)."
    )
    check_there("--background-transform", scene.background_transform, "Expected a JSON file.")


def open_run(config: Path, scene: SceneOptions, progress: Progress) -> TrainedRun:
    """Returns the avatar of a run, in a scene."""
    with working(progress, f"Opening {config.parent}"):
        from edit3dgs_ns.runs.backgrounds import read_background
        from edit3dgs_ns.runs.trained_run import TrainedRun

        backdrop = read_background(scene)
        run = TrainedRun(config)
    for note in run.composite_over(backdrop):
        say(note)
    return run
