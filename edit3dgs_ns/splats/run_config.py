"""The few values of a run's config.yml that an avatar needs to be drawn, read without building any of the classes it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import yaml

from edit3dgs_ns.errors import UserError

if TYPE_CHECKING:
    from edit3dgs_ns.splats.rasterize import RasterizeMode

_PYTHON = "tag:yaml.org,2002:python/"
_LARGEST = 4 * 2**20
"""Bytes; Nerfstudio's have 20 kB."""
YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError, OverflowError)
"""What PyYAML raises for a file that is damaged: its own errors, and those of Python's types in scalars."""


@dataclass(frozen=True)
class RunConfig:
    """What the avatar of a run is drawn with."""

    flame_model: Path | None = None
    """FLAME's file; None: the embedded open head, or what FLAME_MODEL_PATH names."""
    rasterize_mode: RasterizeMode = "classic"


def read_run_config(path: Path) -> RunConfig:
    """Reads a config.yml as plain data; nothing in it is ever executed or imported.

    Raises:
        ValueError: it is damaged, or no configuration of `ns-train`.
    """
    # Late: backgrounds read plain YAML with this module before anything that draws is loaded.
    from edit3dgs_ns.splats import rasterize

    modes = get_args(rasterize.RasterizeMode)
    content = read_plain_yaml(path)
    model = _at(content, "pipeline", "model")
    if not isinstance(model, dict):
        raise UserError(f"{path} has no pipeline.model. Expected the config.yml of a run of `ns-train`.")
    parts = _at(content, "pipeline", "datamanager", "dataparser", "flame_model")
    flame_model = Path(*map(str, parts)) if isinstance(parts, list) and parts else None
    mode = model.get("rasterize_mode", "classic")
    if mode not in modes:
        raise UserError(
            f"{path}: pipeline.model.rasterize_mode is {str(mode)[:80]!r}. Expected one of {', '.join(modes)}."
        )
    return RunConfig(flame_model, cast("RasterizeMode", mode))


def edited_avatar(path: Path) -> Path | None:
    """What `--pipeline.avatar` named when a run was started; None for a run that has trained its avatar itself.

    Raises:
        ValueError: the file is damaged, or the avatar no path.
    """
    avatar = _at(read_plain_yaml(path), "pipeline", "avatar")
    if avatar is None:
        return None
    parts = avatar if isinstance(avatar, list) else [avatar]
    if not parts or not all(isinstance(part, str) and part and "\0" not in part for part in parts):
        raise UserError(f"{path}: pipeline.avatar is {str(avatar)[:80]!r}. Expected a path.")
    return Path(*parts).expanduser()


def read_plain_yaml(path: Path) -> Any:
    """A YAML file that names Python objects, with plain dicts, lists and strings in their place; nothing is imported or called.

    Raises:
        ValueError: it is no YAML.
    """
    try:
        return yaml.load(config_text(path), Loader=_PlainLoader)
    except YAML_ERRORS as error:
        raise UserError(f"{path} is no readable config.yml of a run: {str(error)[:200]}") from error


def config_text(path: Path) -> str:
    """The text of a config.yml.

    Raises:
        ValueError: it is no text, or longer than that of any run.
    """
    if path.stat().st_size > _LARGEST:
        raise UserError(f"{path} has {path.stat().st_size} bytes: it is no config.yml of a run.")
    return path.read_text(encoding="utf-8")


class _PlainLoader(yaml.SafeLoader):
    """Reads Python's objects as dictionaries, lists and text."""


def _plain(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(cast(yaml.ScalarNode, node))


_PlainLoader.add_multi_constructor(_PYTHON, _plain)


def _at(content: Any, *keys: str) -> Any:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content
