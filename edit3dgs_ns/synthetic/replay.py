"""Renders the images of a capture again, with or without an edit: the truth that edited avatars are compared
with.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.synthetic.expression_edits import EXPRESSION_EDITS
from edit3dgs_ns.synthetic.form import Form
from edit3dgs_ns.synthetic.identity import Identity, random_identity
from edit3dgs_ns.synthetic.motion import SEQUENCES, act
from edit3dgs_ns.synthetic.posing import Frame
from edit3dgs_ns.synthetic.scene import Hits, Render, Scene
from edit3dgs_ns.synthetic.settings import CaptureSettings, read_settings
from edit3dgs_ns.synthetic.true_edits import edited_frame, edited_person


class Replay:
    """Renders any frame of a capture from its settings."""

    def __init__(self, settings: CaptureSettings, flame_model_path: Path | None = None):
        settings.validate()
        self.settings = settings
        self.identity: Identity = random_identity(settings.seed, flame_model_path)
        self.cameras = settings.rig()
        self.motion: dict[str, list[Frame]] = {
            folder_name(settings, plan.name): act(self.identity.head, plan, settings.frames, settings.seed)
            for plan in SEQUENCES
        }
        self._scene: tuple[tuple[str, int, Form, str | None], Scene] | None = None

    def trace(
        self,
        sequence: str,
        timestep: int,
        camera: int,
        edit: str | None = None,
        hue: float | None = None,
    ) -> Hits:
        """Rays of one image, as captured or truly edited: its colours, depth, mask and the mask of an edit's new parts.

        Args:
            edit, hue: see `render`; an edit of colours hits what the capture does.

        Raises:
            ValueError: unknown edit, sequence, timestep or camera; an open edit without a hue.
        """
        person = edited_person(self.identity, edit, hue)
        frames = self.motion.get(sequence)
        if frames is None:
            raise UserError(f"no sequence {sequence!r} in this capture; it has {', '.join(self.motion)}.")
        if not 0 <= timestep < len(frames):
            raise UserError(f"{sequence} has timesteps 0 to {len(frames) - 1}; asked for {timestep}.")
        if camera not in self.cameras:
            raise UserError(
                f"no camera {camera} in this capture; it has {', '.join(str(c) for c in self.cameras)}."
            )
        key = (sequence, timestep, person.form, edit if edit in EXPRESSION_EDITS else None)
        if self._scene is None or self._scene[0] != key:
            self._scene = (key, Scene(person, edited_frame(frames[timestep], edit, person.head)))
        c = self.cameras[camera]
        return self._scene[1].trace(c.c2w, c.K, c.width, c.height, self.settings.samples)

    def render(
        self, sequence: str, timestep: int, camera: int, edit: str | None = None, hue: float | None = None
    ) -> Render:
        """One image, as captured or truly edited.

        Args:
            edit: a key of TRUE_EDITS or OPEN_EDITS, or None for the capture itself.
            hue: of an open edit, in turns.

        Raises:
            ValueError: unknown edit, sequence, timestep or camera; an open edit without a hue.
        """
        appearance = edited_person(self.identity, edit, hue).appearance
        return self.trace(sequence, timestep, camera, edit, hue).shade(appearance)


def folder_name(settings: CaptureSettings, sequence: str) -> str:
    """Folder of a sequence: the person's number, then the sequence's name."""
    return f"{settings.seed:03d}_{sequence}"


@lru_cache(maxsize=2)
def _replay(capture: Path) -> Replay:
    return Replay(read_settings(capture))


def render_edited(
    image: str | Path, edit: str | None, hue: float | None = None
) -> Float[np.ndarray, "h w 3"]:
    """The true edited version of an image file of our capture.

    Args:
        image: .../<sequence>/images/{t:05d}_{cam:02d}.png inside a capture (the file itself is not read).
        edit: a key of TRUE_EDITS or OPEN_EDITS; None renders the capture's own image again.
        hue: of an open edit, in turns.

    Returns:
        sRGB over white, float32 in [0, 1].

    Raises:
        FileNotFoundError: not inside a capture that `edit3dgs capture` wrote.
        ValueError: unknown edit, or a name that no image of the capture has.
    """
    replay, sequence, timestep, camera = _replay_of(Path(image))
    return replay.render(sequence, timestep, camera, edit, hue).rgb


def trace_edited(image: str | Path, edit: str | None, hue: float | None = None) -> Hits:
    """The true edited head behind an image file of our capture: its mask, depth, labels and the mask of its new parts.

    Arguments and errors as of `render_edited`.
    """
    replay, sequence, timestep, camera = _replay_of(Path(image))
    return replay.trace(sequence, timestep, camera, edit, hue)


def _replay_of(image: Path) -> tuple[Replay, str, int, int]:
    """The capture of an image file, and the image's sequence, timestep and camera."""
    path = image.resolve()
    timestep, _, camera = path.stem.partition("_")
    if not (timestep.isdigit() and camera.isdigit()):
        raise UserError(f"{image}: expected a name like 00012_08.png (timestep, camera).")
    return _replay(path.parents[2]), path.parents[1].name, int(timestep), int(camera)
