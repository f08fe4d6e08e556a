"""Motions to play in the viewer: the avatar's own, and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.training.model import RiggedSplatfactoModel
from edit3dgs_ns.viewer.timeline import FRAMES_PER_SECOND

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
        self._fps: dict[str, float] = {}

    def names(self) -> list[str]:
        """Returns the names of all motions."""
        return [OWN, *self._loaded]

    def get(self, name: str) -> tuple[FlameMotion | None, int]:
        """Returns a motion (None for the avatar's own) and its number of frames.

        Raises:
            ValueError: there is none of this name.
        """
        if name != OWN and name not in self._loaded:
            raise UserError(f"no motion {name!r} has been added")
        if name == OWN:
            return None, self._model.head.num_timesteps
        return self._loaded[name], len(self._loaded[name])

    def fps(self, name: str) -> float:
        """Frames per second of a motion."""
        return self._fps.get(name, FRAMES_PER_SECOND)

    def add(
        self, source: str, progress: Callable[[str, int, int], None] = lambda what, done, total: None
    ) -> str:
        """Reads a motion and returns its name; a video is tracked first.

        Args:
            source: a file or folder that `edit3dgs reenact --motion` takes.
            progress: is told how far it is; what it raises ends the reading, and nothing is added.

        Raises:
            FileNotFoundError: no such file or folder.
            ValueError: it holds no motion, or one of another head model.
        """
        from edit3dgs_ns.tracking.driving import drive, open_driver

        if not source.strip():
            raise UserError(
                "Give a file or folder: a video, a flame_param.npz or another capture, for example."
            )
        path = Path(source.strip()).expanduser()
        actor = self._model.head.motion().to("cpu")
        recorded = open_driver(path, self._head, progress=progress).recorded
        motion, _ = drive(recorded, actor, self._head)
        progress("Reading", 1, 1)
        with torch.no_grad():
            self._loaded[str(path)] = motion.to(self._model.device)
        self._fps[str(path)] = recorded.fps or FRAMES_PER_SECOND
        return str(path)
