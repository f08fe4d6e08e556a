"""The true edited head, as the capture's ray tracer shows it.

An edit of TRUE_EDITS has one true look. One of OPEN_EDITS leaves the hue open ("a bright colour"), as most prompts leave
something: its truth is the set of looks over all hues, and a result is compared with the one that is nearest to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from edit3dgs_ns.files import written_beside
from edit3dgs_ns.synthetic.appearance import Appearance
from edit3dgs_ns.synthetic.edits import EDITS, OPEN_EDITS, Edit, OpenEdit
from edit3dgs_ns.synthetic.expression_edits import ExpressionEdit
from edit3dgs_ns.synthetic.form_edits import FormEdit
from edit3dgs_ns.synthetic.replay import Replay
from edit3dgs_ns.synthetic.scene import Frame, Hits, Scene
from edit3dgs_ns.synthetic.settings import read_settings
from edit3dgs_ns.synthetic.true_edits import TRUE_EDITS, edited_person

KNOTS = 6
"""Hues that are rendered for the search: from one to the next, `hue_color` is linear, and so nearly is the picture."""
HUES = 48
"""Hues that are tried."""
_PICTURES = 56
"""Traced pictures that are held, some 10 MB each at 256 x 256."""

Picture = tuple[str, int, int]
"""Sequence, timestep and camera of an image of the capture."""


def sentence(edit: str) -> str:
    """The usual wording of an edit.

    Raises:
        ValueError: there is no such edit.
    """
    known: dict[str, Edit | OpenEdit | FormEdit | ExpressionEdit] = {**TRUE_EDITS, **OPEN_EDITS}
    if edit not in known:
        raise ValueError(f"--edits {edit}: there are {', '.join(known)}.")
    return known[edit].instructions[0]


def is_open(edit: str) -> bool:
    """Whether the edit leaves the hue open."""
    return edit in OPEN_EDITS


def picture_of(image: Path) -> Picture:
    """What an image file of the capture shows."""
    timestep, _, camera = image.stem.partition("_")
    return image.resolve().parents[1].name, int(timestep), int(camera)


class TrueHead:
    """Pictures of a capture, before and after edits, and the geometry behind them.

    Args:
        capture: folder that `edit3dgs capture` wrote.
        cache: folder for renders that many rows need.
    """

    def __init__(self, capture: Path, cache: Path):
        self.replay = Replay(read_settings(capture))
        self.identity = self.replay.identity
        self._cache = cache
        self.hits = lru_cache(maxsize=_PICTURES)(self._trace)
        self.scene = lru_cache(maxsize=8)(self._scene)

    def frame(self, picture: Picture) -> Frame:
        """Expression and pose."""
        return self.replay.motion[picture[0]][picture[1]]

    def render(self, picture: Picture, edit: str, hue: float | None) -> Float[np.ndarray, "height width 3"]:
        """The true edited picture.

        Args:
            hue: in turns, for an open edit; None for others.
        """
        moved = edit if edit not in EDITS and not is_open(edit) else None
        return self.hits(picture, moved).shade(self.appearance(edit, hue)).rgb

    def appearance(self, edit: str, hue: float | None) -> Appearance:
        """How the person looks after an edit."""
        assert hue is not None or not is_open(edit), f"{edit} needs a hue"
        return edited_person(self.identity, edit, hue).appearance

    def knots(self, picture: Picture, edit: str) -> UInt8[np.ndarray, "knots height width 3"]:
        """The true picture after an open edit, in hues 0, 1/KNOTS, ...; kept on disk."""
        sequence, timestep, camera = picture
        path = self._cache / f"{edit}_{sequence}_{timestep:05d}_{camera:02d}.npy"
        if not path.is_file():
            renders = np.stack([self.render(picture, edit, k / KNOTS) for k in range(KNOTS)])
            with written_beside(path) as partial, partial.open("wb") as file:
                np.save(file, np.rint(renders * 255).astype(np.uint8))
        return np.load(path, allow_pickle=False)

    def nearest_hue(
        self, results: Sequence[Float[np.ndarray, "height width 3"]], pictures: Sequence[Picture], edit: str
    ) -> float | None:
        """The hue whose true pictures are nearest to some results (least squares); None for an edit of one look."""
        if not is_open(edit):
            return None
        errors = [hue_errors(r, self.knots(p, edit)) for r, p in zip(results, pictures, strict=True)]
        return float(np.mean(errors, axis=0).argmin() / HUES)

    def _trace(self, picture: Picture, moved: str | None = None) -> Hits:
        """Hits of the captured head, or of the one that an edit of form or expression leaves."""
        return self.replay.trace(*picture, moved)

    def _scene(self, sequence: str, timestep: int) -> Scene:
        return Scene(self.identity, self.replay.motion[sequence][timestep])


def hue_errors(
    result: Float[np.ndarray, "height width 3"], knots: UInt8[np.ndarray, "knots height width 3"]
) -> Float[np.ndarray, " hues"]:
    """Mean squared difference of a picture to the true ones of HUES hues, interpolated between the knots.

    With a and b the differences to two neighbouring knots, that to the mixture is |(1-w) a + w b|^2: three sums per pair of
    knots give all hues.
    """
    differences = (result[None] - knots.astype(np.float32) / 255).reshape(len(knots), -1)
    following = np.roll(differences, -1, axis=0)
    own = (differences**2).mean(axis=1)
    cross = (differences * following).mean(axis=1)
    place = np.arange(HUES) * len(knots) / HUES
    k = place.astype(int)
    w = place - k
    return (1 - w) ** 2 * own[k] + 2 * w * (1 - w) * cross[k] + w**2 * np.roll(own, -1)[k]
