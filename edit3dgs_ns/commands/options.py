"""Options and checks that several commands share. Imports nothing heavy: `edit3dgs --help` reads it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from edit3dgs_ns.console import say, working
from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.runs.scene_options import SceneOptions

if TYPE_CHECKING:
    from rich.progress import Progress

    from edit3dgs_ns.runs.trained_run import TrainedRun

InScene = Annotated[SceneOptions, tyro.conf.arg(name="")]
"""Options without a prefix: --background, --background-transform."""
NO_SCENE = SceneOptions()


def check_positive(**options: float | None) -> None:
    """Raises a ValueError for a number that is given and not positive; options by the names of their flags."""
    for name, value in options.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"--{name.replace('_', '-')} {value}: expected a positive number.")


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
