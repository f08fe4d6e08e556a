"""Where the weights of masks from words are: hub ids, folders, checkpoint files. Reading them runs nothing in them."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edit3dgs_ns.editing.masks.grounded_sam_options import OTHERWISE
from edit3dgs_ns.errors import MissingFileError, UserError

if TYPE_CHECKING:
    from torch import Tensor

PICKLED = (".pth", ".pt")
CHECKPOINTS = (*PICKLED, ".safetensors")
_HUB_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/([\w.-]+))?")


def locate(option: str, value: str, files: Sequence[str], example: str) -> Path:
    """The folder or file that an option means; what a hub id means is downloaded, or taken from the hub's cache.

    Args:
        option: name of the option, for messages.
        value: a path, a hub id (`owner/name`), or one file on the hub (`owner/name/file`).
        files: patterns of the files that are wanted of a hub id.
        example: a hub id to name in messages.

    Raises:
        FileNotFoundError: there is no such file or folder, or the hub's files are not to be had.
    """
    path = Path(value).expanduser()
    if value.strip() and path.exists():
        return path.resolve()
    match = _HUB_ID.fullmatch(value.strip())
    if match is None or (match[2] is not None) != value.strip().endswith(CHECKPOINTS):
        raise MissingFileError(
            f"{option} {value!r}: there is no such file or folder, and it is no hub id (owner/name). Give a path, or a hub "
            f"id such as {example}. {OTHERWISE}"
        )
    folder = _from_hub(option, match[1], files if match[2] is None else (match[2],))
    if match[2] is None:
        return folder
    if not (folder / match[2]).is_file():
        raise MissingFileError(f"{option} {value}: {match[1]} has no file {match[2]}. {OTHERWISE}")
    return folder / match[2]


def _from_hub(option: str, repo: str, files: Sequence[str]) -> Path:
    from huggingface_hub import constants, snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=list(files)))
    except (OSError, ValueError) as error:  # the hub's errors are of these two kinds
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        why = (
            "HF_HUB_OFFLINE is set"
            if offline
            else "the download failed: no network, no such model, or no access"
        )
        raise MissingFileError(
            f"{option} {repo}: the weights are not in the cache {constants.HF_HUB_CACHE}, and {why} "
            f"({_first_line(error)}).\nDownload them once where there is a network (hf download {repo}), or give the path "
            f"of a copy: {option} /path/to/it.\n{OTHERWISE}"
        ) from error


def read_checkpoint(path: Path, option: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name: of safetensors, or of what `torch.save` wrote, plain or under "model".

    Raises:
        ValueError: it is no checkpoint, is damaged, or holds more than tensors and plain values.
    """
    if path.suffix not in CHECKPOINTS:
        raise UserError(
            f"{option} {path}: expected a checkpoint ending in {', '.join(CHECKPOINTS)}. {OTHERWISE}"
        )
    content = _read_pickled(path, option) if path.suffix in PICKLED else _read_safetensors(path, option)
    weights = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(hasattr(value, "shape") for value in weights.values()):
        raise UserError(
            f'{option} {path}: expected tensors by name, or {{"model": tensors by name}}, as the authors publish them. '
            f"{OTHERWISE}"
        )
    # Training on several devices puts "module." before every name.
    return {name.removeprefix("module."): value for name, value in weights.items()}


def _read_pickled(path: Path, option: str) -> object:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{option} {path}: holds more than tensors and plain values, and is not read: such files can run anything. "
            f"If you trust it, save its weights alone: torch.save({{'model': weights}}, ...). ({_first_line(error)})"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{option} {path}: cannot be read, it may be cut off ({_first_line(error)}). Get it again. {OTHERWISE}"
        ) from error


def _read_safetensors(path: Path, option: str) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{option} {path}: cannot be read, it may be cut off ({_first_line(error)}). Get it again. {OTHERWISE}"
        ) from error


def fingerprint(paths: Iterable[Path]) -> str:
    """Short hash of what files hold, independent of their names: two copies of the same weights are the same weights."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()[:16]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no details'}"
