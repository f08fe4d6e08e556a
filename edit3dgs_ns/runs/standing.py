"""`edit3dgs derive`: writes the run of an avatar that stands still at one timestep, or stands in a scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.runs.backgrounds import read_background, scene_name
from edit3dgs_ns.runs.derive import derived_folder, require_avatar, write_derived_run
from edit3dgs_ns.runs.scene_options import SceneOptions
from edit3dgs_ns.splats.checkpoints import PLAYS, find_checkpoint, model_state, read_checkpoint
from edit3dgs_ns.splats.rigged_gaussians import motion_of


def derive_run(
    load_config: Path,
    timestep: int | None = None,
    time: float | None = None,
    scene: SceneOptions | None = None,
    run_name: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the run of `edit3dgs derive`; needs neither the capture nor the head model.

    Args:
        load_config: the avatar's config.yml.
        timestep: of the motion at which the avatar stands still, counted from 0.
        time: the same as a normalised time.
        scene: that it stands in.
        run_name: end of the new run's name; None: the timestep and the scene.
        overwrite: replace a run of this name that was made here.

    Returns:
        Its config.yml.

    Raises:
        FileNotFoundError, ValueError: something is missing or damaged, or a timestep outside the motion.
        FileExistsError: there is a folder of the new run's name that may not be replaced.
    """
    scene = scene or SceneOptions()
    folder = derived_folder(load_config, run_name or _name(timestep, time, scene), overwrite)
    checkpoint = find_checkpoint(load_config, "--load-config", "an avatar's run")
    content = read_checkpoint(checkpoint, "--load-config")
    require_avatar(content, checkpoint)
    motion = _still_motion(motion_of(model_state(content)), timestep, time)
    backdrop = read_background(scene)
    played = content["pipeline"].get(PLAYS, "its own motion")
    record: dict[str, Any] = {
        "motion": played if motion is None else f"{_time_name(timestep, time)} of {played}"
    }
    if backdrop is not None:
        record["motion"] += f" in {backdrop.source}"
    return write_derived_run(load_config, folder, motion, record, backdrop)


def _still_motion(motion: FlameMotion, timestep: int | None, time: float | None) -> FlameMotion | None:
    """Returns a motion of one frame; None if no timestep is asked for."""
    last = len(motion) - 1
    if timestep is not None:
        if not 0 <= timestep <= last:
            raise UserError(f"--timestep {timestep}: the avatar's motion has the timesteps 0 to {last}.")
        return motion.slice(timestep, timestep + 1)
    if time is None:
        return None
    if not 0 <= time <= 1:
        raise UserError(f"--time {time}: expected a normalised time, 0 (start) to 1 (end).")
    return motion.with_pose(motion.interpolate(time))


def _time_name(timestep: int | None, time: float | None) -> str:
    return f"timestep {timestep}" if timestep is not None else f"time {time:g}"


def _name(timestep: int | None, time: float | None, scene: SceneOptions) -> str:
    """`timestep-12`, `time-0.5`, `in-office`, or both."""
    words = [] if timestep is None and time is None else [_time_name(timestep, time).replace(" ", "-")]
    if scene.background is not None:
        words.append(f"in-{scene_name(scene.background)}")
    return "-".join(words)
