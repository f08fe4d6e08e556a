"""Motions to play in the viewer: the avatar's own, and files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.training.model import RiggedSplatfactoModel
from edit3dgs_ns.viewer.timeline import FRAMES_PER_SECOND

OWN = "the capture's own"


@dataclass(frozen=True)
class LoadedMotion:
    """A motion that was added."""

    source: Path
    motion: FlameMotion
    """On the avatar's head."""
    fps: float
    notes: tuple[str, ...]


class Motions:
    """Named motions for one avatar. Its identity stays; expressions and poses come from the motion.

    Args:
        model: the avatar.
        head: its head model.
    """

    def __init__(self, model: RiggedSplatfactoModel, head: FlameAssets):
        self._model, self._head = model, head
        self._loaded: dict[str, LoadedMotion] = {}

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
        motion = self._loaded[name].motion
        return motion, len(motion)

    def fps(self, name: str) -> float:
        """Frames per second of a motion."""
        return self._loaded[name].fps if name in self._loaded else FRAMES_PER_SECOND

    def notes(self, name: str) -> tuple[str, ...]:
        """What the user should know of a motion."""
        return self._loaded[name].notes if name in self._loaded else ()

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
        motion, notes = drive(recorded, actor, self._head)
        progress("Reading", 1, 1)
        with torch.no_grad():
            played = motion.to(self._model.device)
        name = self._name_of(path)
        fps = recorded.fps or FRAMES_PER_SECOND
        self._loaded[name] = LoadedMotion(path, played, fps, (*recorded.notes, *notes))
        return name

    def _name_of(self, path: Path) -> str:
        """The file's name, with its folder's where that is another motion's."""
        for name in (path.name, f"{path.name} ({path.parent.name})"):
            if name != OWN and (name not in self._loaded or self._loaded[name].source == path):
                return name
        return str(path)
