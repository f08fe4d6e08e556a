"""Where the classes stand now that the config.yml of an older run names.

Nerfstudio's config.yml holds Python class paths. Runs made before the package was divided into rooms name the modules
of that time; they open because these names lead to the same classes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from edit3dgs_ns.errors import UserError

_PACKAGE = "edit3dgs_ns"
MOVED: Mapping[str, Mapping[str, str]] = {
    "avatar_options": {"RiggedSplatfactoModelConfig": "training.model"},
    "avatar_pipeline": {"AvatarPipeline": "training.pipeline", "AvatarPipelineConfig": "training.pipeline"},
    "checkpoints": {"ResumableTrainer": "training.trainer"},
    "datamanager": {
        "AvatarDatamanager": "training.datamanager",
        "AvatarDatamanagerConfig": "training.datamanager",
    },
    "edit_options": {"EditorConfig": "edit_training.options"},
    "editing.grounded_sam_options": {"GroundedSamOptions": "editing.masks.grounded_sam_options"},
    "model": {
        "RiggedSplatfactoModel": "training.model",
        "RiggedSplatfactoModelConfig": "training.model",
    },
    "pipeline": {"EditPipeline": "edit_training.pipeline", "EditPipelineConfig": "edit_training.pipeline"},
    "schedulers": {
        "ExponentialScheduler": "training.schedulers",
        "ExponentialSchedulerConfig": "training.schedulers",
    },
    "trainer": {"AvatarTrainerConfig": "training.trainer_config"},
}
"""Former module -> class -> module that holds it now, all within this package."""


def accept_older_class_paths() -> None:
    """Lets config.yml of older runs be loaded. Cheap: nothing is imported before such a name is met; again is harmless."""
    if not any(isinstance(finder, _MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MovedFinder())


@contextmanager
def unknown_classes_named(config_path: Path) -> Iterator[None]:
    """Within this, a config.yml is loaded: a class path in it that leads nowhere becomes a UserError that names it.

    Args:
        config_path: the file, for the message.
    """
    import yaml

    try:
        yield
    except yaml.constructor.ConstructorError as error:
        raise UserError(
            f"{config_path} names a class that is not there: {error.problem}. Either it is no run of this project's methods "
            "(`ns-train rigged-splatfacto`, `rigged-splatfacto-fast`, `edit3dgs`), or another version of edit3dgs made it: open "
            "it with that one."
        ) from error


class _MovedFinder(MetaPathFinder, Loader):
    """Finds former modules as modules that hold nothing but the classes of MOVED."""

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        moved = fullname.removeprefix(f"{_PACKAGE}.")
        return ModuleSpec(fullname, self) if fullname != moved and moved in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        for name, now in MOVED[module.__name__.removeprefix(f"{_PACKAGE}.")].items():
            setattr(module, name, getattr(import_module(f"{_PACKAGE}.{now}"), name))
