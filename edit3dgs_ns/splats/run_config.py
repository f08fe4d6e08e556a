"""The few values of a run's config.yml that an avatar needs to be drawn, read without building any of the classes it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.splats.rasterize import RasterizeMode

_PYTHON = "tag:yaml.org,2002:python/"


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
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no readable config.yml of a run: {str(error)[:200]}") from error
    model = _at(content, "pipeline", "model")
    if not isinstance(model, dict):
        raise UserError(f"{path} has no pipeline.model. Expected the config.yml of a run of `ns-train`.")
    parts = _at(content, "pipeline", "datamanager", "dataparser", "flame_model")
    flame_model = Path(*map(str, parts)) if isinstance(parts, list) and parts else None
    return RunConfig(flame_model, cast(RasterizeMode, model.get("rasterize_mode", "classic")))


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
