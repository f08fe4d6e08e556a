"""Reads a run's config.yml, which may come from anybody.

Nerfstudio writes and reads it with YAML's tags for Python objects, and its loader calls whatever such a tag names: a config.yml can
run a program. Here a tag builds only

- configurations: dataclasses of this project and of Nerfstudio, by their constructors;
- the classes that configurations name as their targets, which are not called here;
- paths, in the notation of this system whichever wrote them, tuples, and Nerfstudio's enumeration of events.
"""

from __future__ import annotations

import dataclasses
import enum
import pathlib
import types
import typing
from importlib import import_module
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, Union

import yaml

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.runs.class_paths import unknown_classes_named
from edit3dgs_ns.splats.run_config import YAML_ERRORS, config_text

_TAG = "tag:yaml.org,2002:python/"
_OURS, _NERFSTUDIO = "edit3dgs_ns", "nerfstudio"
_WINDOWS_PATHS, _PATHS = (
    ("WindowsPath", "PureWindowsPath"),
    ("PosixPath", "PurePosixPath", "Path", "PurePath"),
)


def read_config(path: Path) -> Any:
    """The configuration of a run (a TrainerConfig) with the checkpoints beside it, wherever the run lies now.

    Args:
        path: a config.yml.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no configuration of a training, or names something else than configurations.
    """
    from nerfstudio.engine.trainer import TrainerConfig

    if not path.is_file():
        raise MissingFileError(f"{path}: no such file. Expected the config.yml of a finished ns-train run.")
    try:
        with unknown_classes_named(path):
            config = yaml.load(config_text(path), Loader=_ConfigLoader)
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error
    except YAML_ERRORS as error:
        raise UserError(f"{path} is no readable config.yml of a run: {str(error)[:300]}") from error
    if not isinstance(config, TrainerConfig):
        raise UserError(f"{path} is no configuration of `ns-train`, but a {type(config).__name__}.")
    return config


class _ConfigLoader(yaml.SafeLoader):
    """Builds plain values, and what `_construct` allows."""


def _construct(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    kind, _, name = suffix.partition(":")
    if kind == "tuple" and isinstance(node, yaml.SequenceNode):
        return tuple(loader.construct_sequence(node, deep=True))
    if kind == "name":
        return _target(_found(name, node), name, node)
    if kind == "object" and isinstance(node, yaml.MappingNode):
        return _configuration(_found(name, node), loader.construct_mapping(node, deep=True), name, node)
    if kind == "object/apply" and isinstance(node, yaml.SequenceNode):
        return _value(name, loader.construct_sequence(node, deep=True), node)
    raise _refused(suffix, node)


_ConfigLoader.add_multi_constructor(_TAG, _construct)


def _configuration(cls: type, fields: dict[Any, Any], name: str, node: yaml.Node) -> Any:
    from nerfstudio.configs.base_config import PrintableConfig

    is_ours = cls.__module__.split(".")[0] == _OURS
    if not (dataclasses.is_dataclass(cls) and (is_ours or issubclass(cls, PrintableConfig))):
        raise _refused(name, node)
    build: Any = cls
    known = {field.name for field in dataclasses.fields(build) if field.init}
    hints = typing.get_type_hints(cls)
    for key, value in fields.items():
        if key in known and not _fits(value, hints.get(key, Any)):
            raise UserError(f"{name}.{key} is {str(value)[:80]!r}, which is no {hints[key]}")
    # A field that a former version had is passed over, one that it did not have yet has its default.
    return build(**{key: value for key, value in fields.items() if key in known})


def _target(cls: Any, name: str, node: yaml.Node) -> type:
    import torch
    from nerfstudio.cameras.camera_optimizers import CameraOptimizer
    from nerfstudio.data.datamanagers.base_datamanager import DataManager
    from nerfstudio.data.dataparsers.base_dataparser import DataParser
    from nerfstudio.data.datasets.base_dataset import InputDataset
    from nerfstudio.engine.schedulers import Scheduler
    from nerfstudio.engine.trainer import Trainer
    from nerfstudio.models.base_model import Model
    from nerfstudio.pipelines.base_pipeline import Pipeline
    from nerfstudio.utils.writer import LocalWriter

    targets = (
        CameraOptimizer, DataManager, DataParser, InputDataset, LocalWriter, Model, Pipeline, Scheduler, Trainer,
        torch.optim.Optimizer,
    )  # fmt: skip
    if not issubclass(cls, targets):
        raise _refused(name, node)
    return cls  # type: ignore[no-any-return]


def _value(name: str, arguments: list[Any], node: yaml.Node) -> Any:
    module, _, cls = name.rpartition(".")
    if module in ("pathlib", "pathlib._local") and all(isinstance(part, str) for part in arguments):
        if cls in _WINDOWS_PATHS:
            return Path(PureWindowsPath(*arguments).as_posix())
        if cls in _PATHS:
            return Path(PurePosixPath(*arguments))
    found = _found(name, node)
    if issubclass(found, enum.Enum) and len(arguments) == 1:
        return found(arguments[0])
    raise _refused(name, node)


def _found(name: str, node: yaml.Node) -> type:
    """The class of this project, of Nerfstudio or of PyTorch's optimizers that a tag names."""
    module, _, attribute = name.rpartition(".")
    is_optimizer = module.startswith("torch.optim.")
    parts = module.split(".")
    # Modules with an underscore, like __main__, do something when they are imported.
    if not (is_optimizer or parts[0] in (_OURS, _NERFSTUDIO)) or any(part.startswith("_") for part in parts):
        raise _refused(name, node)
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError as error:
        raise yaml.constructor.ConstructorError(
            None, None, f"cannot find module {module!r} ({error})", node.start_mark
        ) from error
    if found is None:
        problem = f"cannot find {attribute!r} in the module {module!r}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    if not isinstance(found, type):
        raise _refused(name, node)
    return found


def _refused(name: str, node: yaml.Node) -> UserError:
    mark: Any = node.start_mark
    return UserError(
        f"line {mark.line + 1} asks for {name!r}, which no configuration needs: it could run a program, and nothing of this "
        "file was used"
    )


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value has the type that a field is annotated with; what is no plain type is not looked at."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _fits(value, arguments[0])
    if origin in (Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (bool, str, type(None)):
        return isinstance(value, annotation)
    if annotation in (Path, pathlib.PurePath):
        return isinstance(value, (Path, str))
    if origin in (tuple, list):
        return isinstance(value, (tuple, list))
    if origin is dict:
        return isinstance(value, dict)
    return not isinstance(annotation, type) or not dataclasses.is_dataclass(annotation) or _is_one(value)


def _is_one(value: Any) -> bool:
    return dataclasses.is_dataclass(value) or value is None
