"""Motions to play in the viewer: the avatar's own, and files."""

from __future__ import annotations

from pathlib import Path

import torch

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.training.model import RiggedSplatfactoModel

OWN = "the capture's own"


class Motions:
    """Named motions for one avatar. Its identity stays; expressions and poses come from the motion.

    Args:
        model: the avatar.
        head: its head model.
    """

    def __init__(self, model: RiggedSplatfactoModel, head: FlameAssets):
        self._model, self._head = model, head
        self._loaded: dict[str, FlameMotion] = {}

    def names(self) -> list[str]:
        """Returns the names of all motions."""
        return [OWN, *self._loaded]

    def get(self, name: str) -> tuple[FlameMotion | None, int]:
        """Returns a motion (None for the avatar's own) and its number of frames."""
        if name == OWN:
            return None, self._model.head.num_timesteps
        return self._loaded[name], len(self._loaded[name])

    def add(self, source: str) -> str:
        """Reads a motion and returns its name.

        Args:
            source: a file or folder that `edit3dgs reenact --motion` takes.

        Raises:
            FileNotFoundError: no such file or folder.
            ValueError: it holds no motion, or one of another head model.
        """
        from edit3dgs_ns.tracking.driving import drive, open_driver

        if not source.strip():
            raise UserError("Give a file or folder: a flame_param.npz or another capture, for example.")
        path = Path(source.strip()).expanduser()
        actor = self._model.head.motion().to("cpu")
        motion, _ = drive(open_driver(path, self._head).recorded, actor, self._head)
        with torch.no_grad():
            self._loaded[str(path)] = motion.to(self._model.device)
        return str(path)
