"""The trainer configuration of both methods: runs on what the machine has, ends by itself, and keeps the viewer to this machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.engine.trainer import TrainerConfig

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


def _asked_for_a_host() -> bool:
    flags = ("--viewer.websocket-host", "--viewer.websocket_host")
    return any(argument.startswith(flags) for argument in sys.argv)
