"""A run that plays another motion, or stands in a scene: configuration and checkpoint of an avatar, with the poses exchanged.

Every `ns-*` command takes it like the run that it comes from: `ns-viewer`, `ns-render camera-path|dataset`, `ns-export`. A time in
[0, 1] is a normalised time in it. It is for showing, not for training: it has no optimizers.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from edit3dgs_ns.errors import ExistingFileError, UserError
from edit3dgs_ns.files import folder_written_beside
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.runs.config_file import read_config
from edit3dgs_ns.splats.checkpoints import (
    BACKDROP,
    CHECKPOINT_FOLDER,
    PLAYS,
    find_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from edit3dgs_ns.splats.rig import POSE_PARAMETERS
from edit3dgs_ns.splats.world_splats import Backdrop

MARKER = "reenactment.json"
"""Says what is played; a folder without it was not made here and is left alone."""
_COPIED = ("dataparser_transforms.json", "edit_history.json")
_RUN = "the config.yml of a run of `ns-train rigged-splatfacto` or `ns-train edit3dgs`"


def derived_folder(load_config: Path, name: str, overwrite: bool = False) -> Path:
    """Where the run that plays `name` goes: beside the avatar's own.

    Args:
        load_config: the avatar's config.yml.
        name: end of the folder's name.
        overwrite: whether a run that was made here may be replaced; nothing else ever is.

    Raises:
        ValueError: `name` is no part of a folder's name.
        FileExistsError: something is there that may not be replaced.
    """
    if name in ("", ".", "..") or Path(name).name != name:
        raise UserError(f"--run-name {name!r}: expected a part of a folder's name, without '/'.")
    run = Path(os.path.abspath(load_config)).parent
    folder = run.with_name(f"{run.name}-{name}")
    if folder.exists() and not (folder / MARKER).is_file():
        raise ExistingFileError(f"{folder} is there already, but is no reenactment. Give another --run-name.")
    if folder.exists() and not overwrite:
        raise ExistingFileError(
            f"The run {folder} is there already. Give another --run-name, or --overwrite."
        )
    return folder


def write_derived_run(
    load_config: Path,
    folder: Path,
    motion: FlameMotion | None,
    record: Mapping[str, Any],
    backdrop: Backdrop | None = None,
) -> Path:
    """Writes the run; one that is there is replaced as a whole.

    Args:
        load_config: the avatar's config.yml.
        folder: from `derived_folder`.
        motion: on the avatar's head (see `flame.retarget`); None for its own.
        record: JSON values that say what is played; "motion" names it.
        backdrop: the scene that it stands in, kept in the run's checkpoint; None for what the avatar's run has.

    Returns:
        Its config.yml.

    Raises:
        FileNotFoundError, ValueError: the avatar's run has no checkpoint, or none of an avatar.
    """
    checkpoint = find_checkpoint(load_config, "--load-config", _RUN)
    content = read_checkpoint(checkpoint, "--load-config")
    require_avatar(content, checkpoint)
    if backdrop is not None:
        record = {**record, "background": backdrop.source}
    with folder_written_beside(folder) as unfinished:
        (unfinished / "config.yml").write_text(_config(load_config, folder), encoding="utf-8")
        models = unfinished / CHECKPOINT_FOLDER
        models.mkdir()
        empty: dict[str, Any] = {"optimizers": {}, "schedulers": {}, "scalers": {}}
        pipeline = _with_motion(content["pipeline"], motion) | {PLAYS: str(record["motion"])}
        if backdrop is not None:
            pipeline[BACKDROP] = backdrop.state()
        state = {"step": content["step"], "pipeline": pipeline}
        write_checkpoint(state | empty, models / checkpoint.name)
        for name in _COPIED:
            if (load_config.parent / name).is_file():
                shutil.copyfile(load_config.parent / name, unfinished / name)
        text = json.dumps({"avatar": str(load_config), **record}, indent=1)
        (unfinished / MARKER).write_text(text + "\n", encoding="utf-8")
    return folder / "config.yml"


def _config(load_config: Path, folder: Path) -> str:
    """The avatar's configuration for another folder beside its own."""
    config = read_config(load_config)
    # Nerfstudio looks for checkpoints in OUTPUT/EXPERIMENT/METHOD/TIMESTAMP: where the run lies now.
    method = folder.parent
    config.output_dir, config.experiment_name = method.parent.parent, method.parent.name
    config.method_name, config.timestamp = method.name, folder.name
    config.load_dir = config.load_step = config.load_checkpoint = None
    return str(yaml.dump(config))


def require_avatar(content: Mapping[str, Any], checkpoint: Path) -> None:
    """Raises a ValueError for a checkpoint without a head that moves."""
    if any(len(_keys(content["pipeline"], name)) != 1 for name in POSE_PARAMETERS):
        raise UserError(f"--load-config {checkpoint} holds no rigged avatar. Expected {_RUN}.")


def _with_motion(state: Mapping[str, Any], motion: FlameMotion | None) -> dict[str, Any]:
    changed = dict(state)
    for name in POSE_PARAMETERS if motion is not None else ():
        (key,) = _keys(state, name)
        changed[key] = getattr(motion, name).detach().cpu().float().contiguous()
    return changed


def _keys(state: Mapping[str, Any], name: str) -> list[str]:
    return [key for key in state if key.endswith(f"head.pose.{name}")]
