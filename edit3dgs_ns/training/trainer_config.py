"""The trainer configuration of both methods: runs on what the machine has, ends by itself, and keeps the viewer to this machine."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.engine.trainer import TrainerConfig

from edit3dgs_ns.console import USER_ERROR_EXIT_CODE, print_error
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import check_writable
from edit3dgs_ns.folder_lock import hold_until_exit
from edit3dgs_ns.splats.checkpoints import find_checkpoint
from edit3dgs_ns.training.pipeline import AvatarPipelineConfig

LOOPBACK = "127.0.0.1"
_EVERY_INTERFACE = "0.0.0.0"


def machine() -> MachineConfig:
    """CUDA where there is a device, else the CPU."""
    return MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu")


@dataclass
class AvatarTrainerConfig(TrainerConfig):
    """Nerfstudio's trainer configuration with the defaults of this project."""

    machine: MachineConfig = field(default_factory=machine)
    """Machine configuration"""
    viewer: ViewerConfig = field(
        default_factory=lambda: ViewerConfig(websocket_host=LOOPBACK, quit_on_train_completion=True)
    )
    """Viewer configuration"""
    vis: Literal[
        "viewer",
        "wandb",
        "tensorboard",
        "comet",
        "viewer+wandb",
        "viewer+tensorboard",
        "viewer+comet",
        "viewer_legacy",
    ] = "tensorboard"
    """Which visualizer to use. Held-out images are evaluated during training only with a logger, so not with `viewer` alone."""

    def __setattr__(self, name: str, value: Any) -> None:
        """`ns-viewer` replaces `viewer` by its own defaults, which listen everywhere: loopback unless the flag asks otherwise."""
        listens_everywhere = isinstance(value, ViewerConfig) and value.websocket_host == _EVERY_INTERFACE
        if name == "viewer" and listens_everywhere and not _asked_for_a_host():
            value.websocket_host = LOOPBACK
        super().__setattr__(name, value)

    def print_to_terminal(self) -> None:
        """Checks the run before `ns-train` prints its options and makes the run's folder; a mistake ends with one message."""
        try:
            if self.load_dir is not None and self.load_step is None:
                find_checkpoint(self.load_dir, "--load-dir", f"a run of `ns-train {self.method_name}`")
            assert isinstance(self.pipeline, AvatarPipelineConfig)
            self.pipeline.check()
            check_writable(self.get_base_dir())
            hold_until_exit(self.get_base_dir())
        except UserError as error:
            print_error(str(error))
            sys.exit(USER_ERROR_EXIT_CODE)
        super().print_to_terminal()

    def set_experiment_name(self) -> None:
        """Names the experiment after the capture's folder, wherever `--data` stands on the command line.

        Nerfstudio looks at the `--data` of ns-train alone: one that follows the data parser's name leaves "unnamed". It also takes
        the path's stem, which cuts names such as `UNION10_074_v16_DS2-0.5x` at their dot.
        """
        if self.experiment_name is None:
            manager = self.pipeline.datamanager
            data = manager.data or getattr(getattr(manager, "dataparser", None), "data", None)
            if data is not None:
                data = Path(os.path.abspath(data.expanduser()))
                self.experiment_name = data.parent.name if data.is_file() else data.name
        super().set_experiment_name()


def _asked_for_a_host() -> bool:
    flags = ("--viewer.websocket-host", "--viewer.websocket_host")
    return any(argument.startswith(flags) for argument in sys.argv)
