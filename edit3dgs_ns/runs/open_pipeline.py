"""Opens a run as `ns-eval` does, wherever it lies now and whoever made it.

Nerfstudio's `eval_setup` looks for checkpoints where the run was trained, runs what its config.yml names, and ends in a traceback
for whatever is not as it was.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.runs.config_file import read_config
from edit3dgs_ns.splats.checkpoints import find_checkpoint, read_checkpoint
from edit3dgs_ns.training.pipeline import AvatarPipelineConfig

_RUN = "a run of `ns-train rigged-splatfacto` or `ns-train edit3dgs`"
_OPTION = "--load-config"


def open_pipeline(config_path: Path) -> tuple[Any, int]:
    """The pipeline of a run with its newest checkpoint, and that checkpoint's step.

    Raises:
        FileNotFoundError: there is no such file, no checkpoint, or no capture where the configuration says.
        UserError: it is no run of an avatar, or a file of it is damaged.
    """
    config = read_config(config_path)
    if not isinstance(config.pipeline, AvatarPipelineConfig):
        raise UserError(
            f"{config_path} is no run of an avatar. Expected one of `ns-train rigged-splatfacto` or `ns-train edit3dgs`."
        )
    checkpoint = find_checkpoint(config_path, _OPTION, _RUN)
    content = read_checkpoint(checkpoint, _OPTION)
    _place_data(config.pipeline.datamanager, config_path)
    config.load_dir = checkpoint.parent
    pipeline = config.pipeline.setup(
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"), test_mode="test"
    )
    pipeline.eval()
    try:
        pipeline.load_pipeline(content["pipeline"], int(content["step"]))
    except UserError as error:
        raise UserError(f"{_OPTION} {checkpoint}: {error}") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{_OPTION} {checkpoint} does not fit its config.yml ({str(error)[:300]}). Another version of edit3dgs made it, or the "
            "two are of different runs."
        ) from error
    return pipeline, int(content["step"])


def _place_data(manager: Any, config_path: Path) -> None:
    """Finds the capture that a configuration names: from this working directory, or from a folder above the run."""
    for holder in (manager, manager.dataparser):
        data = getattr(holder, "data", None)
        if data is None or data == Path():
            continue
        holder.data = _found(Path(data).expanduser(), config_path)


def _found(data: Path, config_path: Path) -> Path:
    above = () if data.is_absolute() else config_path.absolute().parents
    folders = (Path(), *above)
    for folder in folders:
        if (folder / data).exists():
            return Path(os.path.abspath(folder / data))
    raise MissingFileError(
        f"{config_path}: its capture {data} is not there. It was moved, or the run was made on another machine or in another "
        "folder. Put the capture there, or write where it is now into config.yml, under `data` of `datamanager` and `dataparser`."
    )
