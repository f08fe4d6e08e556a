"""Finds a CLIP on disk or on the hub and checks its files, before anything is rendered."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.untrusted import parse_json

OPTION = "--clip"
DEFAULT_CLIP = "openai/clip-vit-large-patch14"
"""The model of the published figures (Radford et al., ICML 2021)."""
DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / "demo_clip"
NOTES_FILE = "edit3dgs.json"
"""Notes in the folder of a model that we trained: its description and training words."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_EXPECTED = (
    "Expected a CLIP as transformers' save_pretrained writes it: config.json, *.safetensors, preprocessor_config.json and a "
    "tokenizer (tokenizer.json, or vocab.json with merges.txt)."
)
_OTHERWISE = f"Or give a hub id such as {DEFAULT_CLIP}, or the small embedded one: {OPTION} {DEMO}"


def find_clip(model: str | Path) -> Path | str:
    """The folder or hub id that `model` names; a folder's files are checked.

    Raises:
        FileNotFoundError: no such folder, or something is missing in it; the message lists what.
        ValueError: it is neither, or the folder holds another kind of model.
    """
    text = str(model).strip()
    folder = DEMO_FOLDER if text == DEMO else Path(text).expanduser()
    if text == DEMO and not folder.is_dir():
        raise MissingFileError(
            f"{OPTION} {DEMO}: {folder} is missing: the package was installed without its data. "
            f"`python -m tools.data.demo_clip all` makes it; or give another CLIP, such as {DEFAULT_CLIP}."
        )
    if text and folder.is_dir():
        check_clip_folder(folder)
        return folder.resolve()
    if isinstance(model, str) and _HUB_ID.fullmatch(text) and not text.startswith("."):
        return text
    if not text:
        raise UserError(f"{OPTION} is empty. {_OTHERWISE}")
    raise MissingFileError(
        f"{OPTION} {text}: there is no such folder, and it is no hub id (owner/name). {_EXPECTED} {_OTHERWISE}"
    )


def check_clip_folder(folder: Path) -> None:
    """Raises an error for a folder with missing files or another kind of model. Reads no weights."""
    missing = missing_parts(folder)
    if missing:
        raise MissingFileError(f"{OPTION} {folder}: {', '.join(missing)} missing. {_EXPECTED} {_OTHERWISE}")
    kind = _read_json(folder / "config.json").get("model_type")
    if kind != "clip":
        raise UserError(f"{OPTION} {folder}: its config.json says model_type {kind!r}. {_EXPECTED}")


def missing_parts(folder: Path) -> list[str]:
    """Files of a CLIP in transformers' format that the folder lacks."""
    missing = [name for name in ("config.json", "preprocessor_config.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    whole = (folder / "tokenizer.json").is_file()
    if not whole and not all((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
        missing.append("its tokenizer (tokenizer.json, or vocab.json and merges.txt)")
    return missing


def clip_note(source: Path | str) -> str:
    """Note to be shown with every score of a model; empty for models that are not ours."""
    return str(_notes(source).get("note", ""))


def clip_words(source: Path | str) -> frozenset[str] | None:
    """Words of the training captions of a model of ours; None for other models."""
    words = _notes(source).get("words")
    return frozenset(words) if isinstance(words, list) and all(isinstance(w, str) for w in words) else None


def _notes(source: Path | str) -> dict[str, Any]:
    """Content of the folder's notes file; empty without one."""
    path = source / NOTES_FILE if isinstance(source, Path) else None
    return _read_json(path) if path is not None and path.is_file() else {}


def read_parts(source: Path | str) -> tuple[Any, Any, Any]:
    """Model, tokenizer and image processor; safetensors only, no code from the folder.

    Raises:
        FileNotFoundError: the hub's files are neither in the cache nor to be had.
        ValueError: the folder's files do not fit together.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

    local = isinstance(source, Path)

    def read(load: Callable[..., Any], **more: Any) -> Any:
        try:
            return load(source, local_files_only=local, **more)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RuntimeError,
            SafetensorError,
        ) as error:
            raise _explain(source, error) from error

    tokenizer = read(CLIPTokenizerFast.from_pretrained)
    processor = read(CLIPImageProcessor.from_pretrained)
    model = read(CLIPModel.from_pretrained, torch_dtype=torch.float32, use_safetensors=True)
    words, known = len(tokenizer), model.config.text_config.vocab_size
    if words > known:
        raise UserError(
            f"{OPTION} {source}: its tokenizer has {words} tokens, its text model {known}: they belong to two models."
        )
    return model, tokenizer, processor


def _explain(source: Path | str, error: Exception) -> Exception:
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0][:300] if lines else 'no details'}"
    if isinstance(source, Path):
        return ValueError(f"{OPTION} {source} cannot be loaded as a CLIP ({reason}). {_EXPECTED}")
    return FileNotFoundError(
        f"{OPTION} {source}: the weights are not on this machine and cannot be downloaded ({reason}). Download them once "
        f"where there is a network (hf download {source}), and give the folder of a copy: {OPTION} /path/to/folder. "
        f"Or use the small embedded one: {OPTION} {DEMO}"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found a {type(content).__name__}.")
    return content
