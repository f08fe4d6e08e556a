"""Finding a run's checkpoints and reading them safely. Needs neither Nerfstudio nor, until one is read, PyTorch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edit3dgs_ns.errors import MissingFileError, UserError

if TYPE_CHECKING:
    import torch

CHECKPOINT_FOLDER = "nerfstudio_models"
BACKDROP = "backdrop"
"""Key in a checkpoint: the background scene of a derived run."""
PLAYS = "plays"
"""Key in a checkpoint: the motion that a run of `edit3dgs reenact` plays instead of the capture's."""
CHECKPOINT_NAME = re.compile(r"step-(\d+)\.ckpt")


def find_checkpoint(run: Path, option: str, what: str) -> Path:
    """The newest checkpoint of a training run.

    Args:
        run: the run's folder, its config.yml, its folder of checkpoints, or a checkpoint.
        option: the flag that gave `run`, for messages.
        what: what it should be, for messages: "a run of `ns-train rigged-splatfacto`".

    Raises:
        FileNotFoundError: there is none.
    """
    run = Path(run).expanduser()
    if run.is_file() and run.suffix == ".ckpt":
        return run
    folder = run.parent if run.is_file() else run
    if not folder.exists():
        raise MissingFileError(
            f"{option} {run}: no such file or folder. Expected {what}: its folder, its config.yml or its {CHECKPOINT_FOLDER}."
        )
    for place in (folder, folder / CHECKPOINT_FOLDER):
        steps = {
            int(m[1]): path
            for path in place.glob("step-*.ckpt")
            if (m := CHECKPOINT_NAME.fullmatch(path.name))
        }
        if steps:
            return steps[max(steps)]
    inside = sorted(folder.glob(f"**/{CHECKPOINT_FOLDER}"))[:5]
    hint = f" Did you mean one of these? {', '.join(str(p.parent) for p in inside)}" if inside else ""
    raise MissingFileError(
        f"{option} {run}: no checkpoint (step-*.ckpt) in it or in its {CHECKPOINT_FOLDER}. Expected {what}; a checkpoint "
        f"appears there once the run has saved one.{hint}"
    )


def read_checkpoint(path: Path, option: str) -> dict[str, Any]:
    """The content of a checkpoint. Nothing but tensors and plain values is ever built from it.

    Its step is the last one that was done: -1 for a run that was stopped in its first round of edits, before any.

    Raises:
        ValueError: it is damaged, or no checkpoint of Nerfstudio.
    """
    import torch

    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{option} {path} cannot be read ({type(error).__name__}: {str(error)[:200]}). It is damaged, or holds "
            "more than tensors and numbers. Use another checkpoint."
        ) from error
    pipeline = content.get("pipeline") if isinstance(content, dict) else None
    if not isinstance(pipeline, Mapping) or not all(isinstance(name, str) for name in pipeline):
        raise UserError(f"{option} {path} is no checkpoint of a Nerfstudio run: it has no 'pipeline'.")
    step = content.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or not -1 <= step < 10**9:
        raise UserError(
            f"{option} {path} is no checkpoint of a Nerfstudio run: its 'step' is {str(step)[:40]!r}."
        )
    return content


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Writes a checkpoint, flushed to the disk. Not atomic: to be called with a name beside the final one.

    Raises:
        OSError: the disk is full or cannot be written. PyTorch says so by a RuntimeError.
    """
    import errno
    import os
    import shutil

    import torch

    try:
        torch.save(dict(content), path)
    except RuntimeError as error:
        full = shutil.disk_usage(path.parent).free < 1 << 20
        code = errno.ENOSPC if full else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _numpy_numbers() -> list[Any]:
    """What a number of NumPy is made of in a pickle: Nerfstudio's schedulers leave such learning rates in the checkpoints of its
    own methods."""
    import numpy as np
    from numpy.core import multiarray

    return [multiarray.scalar, np.dtype, type(np.dtype(np.float64))]  # type: ignore[attr-defined]


def model_state(content: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The model's part of a checkpoint, without Nerfstudio's prefixes and with today's names."""
    prefix = "_model."
    state = {
        key[len(prefix) :]: value for key, value in content["pipeline"].items() if key.startswith(prefix)
    }
    return with_current_names({key.removeprefix("module."): value for key, value in state.items()})


def with_current_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model's state with the parameter names of older checkpoints replaced by today's."""
    names = {key: f"appearance.{key.removeprefix('look.')}" for key in state if key.startswith("look.")}
    return {names.get(key, key): value for key, value in state.items()}
