"""The command `edit3dgs derive`: an avatar at one moment or in a scene, as a run for commands of Nerfstudio that know neither."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edit3dgs_ns.commands.videos import NO_SCENE, InScene
from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.runs.scene_options import SceneOptions

if TYPE_CHECKING:
    from edit3dgs_ns.flame.motion import FlameMotion


def derive_command(
    *,
    load_config: Path,
    timestep: int | None = None,
    time: float | None = None,
    run_name: str | None = None,
    scene: InScene = NO_SCENE,
) -> int:
    """Make a run of an avatar that stands still at one moment, or stands in a scene, for ns-viewer, ns-render and ns-export.

    It lies beside the avatar's own run, which stays as it is. `edit3dgs reenact` makes runs that play another motion.

    Args:
        load_config: The avatar's config.yml, or that of a run that `edit3dgs reenact` has made.
        timestep: Stand still at this timestep of the motion, counted from 0. `ns-export gaussian-splat` then exports it.
        time: The same as a place on the motion, from 0 (start) to 1 (end).
        run_name: End of the new run's name. Default: the moment, or the scene's name.
        scene: The scene around the avatar.
    """
    if timestep is None and time is None and scene.background is None:
        raise UserError("Say what the new run is to show: --timestep or --time, or --background.")
    if timestep is not None and time is not None:
        raise UserError(f"--timestep {timestep} and --time {time}: give one of them.")
    from edit3dgs_ns.console import CONSOLE

    config = derive(load_config, timestep, time, scene, run_name)
    CONSOLE.print("Made the run", highlight=False)
    for command in (
        "ns-viewer",
        "ns-render dataset --split val",
        "ns-export gaussian-splat --output-dir DIR",
    ):
        CONSOLE.print(f"  {command} --load-config {config}", highlight=False, soft_wrap=True, markup=False)
    return 0


def derive(
    load_config: Path,
    timestep: int | None = None,
    time: float | None = None,
    scene: SceneOptions = NO_SCENE,
    run_name: str | None = None,
) -> Path:
    """Writes the run of `edit3dgs derive`; needs neither the capture nor the head model.

    Returns:
        Its config.yml.

    Raises:
        FileNotFoundError, ValueError: something is missing or damaged, or a moment outside the motion.
        FileExistsError: a folder of the new run's name was not made by our commands.
    """
    from edit3dgs_ns.runs.backgrounds import read_background
    from edit3dgs_ns.runs.derive import derived_folder, require_avatar, write_derived_run
    from edit3dgs_ns.runs.exporting import motion_of
    from edit3dgs_ns.training.checkpoints import PLAYS, find_checkpoint, model_state, read_checkpoint

    load_config = Path(load_config).expanduser()
    if not load_config.is_file():
        raise MissingFileError(
            f"--load-config {load_config}: no such file. Expected the config.yml of an avatar's run."
        )
    folder = derived_folder(load_config, run_name or _name(timestep, time, scene))
    checkpoint = find_checkpoint(load_config, "--load-config", "an avatar's run")
    content = read_checkpoint(checkpoint, "--load-config")
    require_avatar(content, checkpoint)
    motion = _moment(motion_of(model_state(content)), timestep, time)
    backdrop = read_background(scene)
    played = content["pipeline"].get(PLAYS, "its own motion")
    record: dict[str, Any] = {
        "motion": played if motion is None else f"{_moment_name(timestep, time)} of {played}"
    }
    if backdrop is not None:
        record["motion"] += f" in {backdrop.source}"
    return write_derived_run(load_config, folder, motion, record, backdrop)


def _moment(motion: FlameMotion, timestep: int | None, time: float | None) -> FlameMotion | None:
    """A motion of one frame; None if no moment is asked for."""
    last = len(motion) - 1
    if timestep is not None:
        if not 0 <= timestep <= last:
            raise UserError(f"--timestep {timestep}: the avatar's motion has the timesteps 0 to {last}.")
        return motion.slice(timestep, timestep + 1)
    if time is None:
        return None
    if not 0 <= time <= 1:
        raise UserError(f"--time {time}: expected a place on the motion, 0 (start) to 1 (end).")
    return motion.with_pose(motion.interpolate(time))


def _moment_name(timestep: int | None, time: float | None) -> str:
    return f"timestep {timestep}" if timestep is not None else f"time {time:g}"


def _name(timestep: int | None, time: float | None, scene: SceneOptions) -> str:
    """`timestep-12`, `time-0.5`, `in-office`, or both."""
    words = [] if timestep is None and time is None else [_moment_name(timestep, time).replace(" ", "-")]
    if scene.background is not None:
        from edit3dgs_ns.runs.backgrounds import scene_name

        words.append(f"in-{scene_name(scene.background)}")
    return "-".join(words)
