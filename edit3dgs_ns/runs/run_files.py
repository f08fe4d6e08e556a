"""Files of a run that a command line names, found without loading anything: config.yml, and where results of the run go.

<run>/config.yml  nerfstudio_models/      as ns-train writes them
<run>/renders/  exports/  evaluation/     what our commands make of it, unless --output says otherwise
"""

from __future__ import annotations

from pathlib import Path

from edit3dgs_ns.errors import ExistingFileError, MissingFileError, UserError
from edit3dgs_ns.splats.checkpoints import find_checkpoint

AVATAR_RUN = "a run of `ns-train rigged-splatfacto`, `ns-train edit3dgs` or `edit3dgs import`"
RENDERS, EXPORTS = "renders", "exports"
"""Folders in a run for its videos, and for its avatar in other formats."""
_PACKAGE = b"edit3dgs_ns"


def find_config(run: Path, option: str = "--load-config", what: str = AVATAR_RUN) -> Path:
    """Returns the config.yml of an avatar's run.

    Args:
        run: that file, or the folder that it is in.
        option: the flag that gave `run`, for messages.
        what: what it should be, for messages.

    Raises:
        FileNotFoundError: there is no such file, or the run has no checkpoint.
        ValueError: it is a run of another method, which has no avatar.
    """
    run = Path(run).expanduser()
    config = run / "config.yml" if run.is_dir() else run
    if run.is_dir() and not config.is_file():
        raise MissingFileError(
            f"{option} {run}: there is no config.yml in this folder. Expected the config.yml of {what}."
        )
    if not config.is_file():
        raise MissingFileError(f"{option} {run}: no such file. Expected the config.yml of {what}.")
    if _PACKAGE not in config.read_bytes():
        raise UserError(f"{option} {config} is no run of an avatar. Expected the config.yml of {what}.")
    find_checkpoint(config, option, what)
    return config


def free_output(path: Path, overwrite: bool, option: str = "--output") -> Path:
    """Returns the path if nothing is there, or if it may be overwritten.

    Raises:
        FileExistsError: something is there.
    """
    if path.exists() and not overwrite:
        raise ExistingFileError(f"{path} is there already. Give another {option}, or --overwrite.")
    return path


def video_path(config: Path, name: str, output: Path | None, overwrite: bool) -> Path:
    """Returns where a video goes: `output`, or else `renders/NAME.mp4` in the run's folder.

    Raises:
        ValueError: it is no mp4.
        FileExistsError: it is there already.
    """
    path = config.parent / RENDERS / f"{name}.mp4" if output is None else output.expanduser()
    if path.suffix.lower() != ".mp4" or path.is_dir():
        raise UserError(f"--output {path}: expected the name of an mp4 file, such as {name}.mp4.")
    return free_output(path, overwrite)
