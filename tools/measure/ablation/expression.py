"""Expression error: eyes and mouth against the true edited picture, and how far the jaw is seen to be open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt

from edit3dgs_ns.synthetic.appearance import Appearance
from edit3dgs_ns.synthetic.canonical import LABELS
from edit3dgs_ns.synthetic.scene import Hits, Scene
from tools.measure.ablation.truth import Picture, TrueHead

EYES_AND_MOUTH = ("eyes", "iris", "teeth", "mouth", "tongue")
"""Labels of the capture inside which the expression error is measured: where eyes and mouth are open. Lips and lids are skin,
which many edits paint; how they move is what the jaw says."""
LIPS_AND_LIDS = ("lips", "eyelids")
KEPT = (*EYES_AND_MOUTH, *LIPS_AND_LIDS)
"""Labels that `--pipeline.editor.keep eyes,mouth` may keep."""
_AWAY = 12 / 256
"""Farther from the kept labels than this share of the picture's height no mask reaches: three of 64 rows of latents."""
_JAW_RANGE, _JAW_STEPS = 0.24, 9
"""Radians that the jaw is tried to be more or less open, and how many angles."""
_MARGIN = (0.03, 0.11)
"""Of the mouth's box beside and above the lips, and below them, in shares of the picture's height."""
_LEAST_LIPS = 6e-4
"""A picture that shows the lips on a smaller share of its pixels shows no mouth."""


def inside(labels: np.ndarray, names: tuple[str, ...]) -> Bool[np.ndarray, "height width"]:
    """Pixels with any of these labels."""
    return np.isin(labels, [LABELS[name] for name in names])


def elsewhere(labels: np.ndarray) -> Bool[np.ndarray, "height width"]:
    """Pixels of the head (clothes left out) that no mask of eyes and mouth reaches, feathered as it is."""
    kept = inside(labels, KEPT)
    head = (labels != LABELS["background"]) & (labels != LABELS["clothes"])
    return head & (distance_transform_edt(~kept) > _AWAY * labels.shape[0]) if kept.any() else head


@dataclass(frozen=True)
class _Mouth:
    """The box around the mouth, traced with the jaw at several angles."""

    rows: slice
    columns: slice
    hits: list[Hits]


class JawGauge:
    """Measures the jaw's opening in a picture: the angle whose true render is most like it around the mouth.

    The render has the picture's camera, expression and pose and the look of the edit; only the jaw's angle is tried. So what is
        measured is the opening that is seen, whatever colour lips and teeth have.
    """

    def __init__(self, head: TrueHead):
        self._head = head
        self._mouth = lru_cache(maxsize=64)(self._trace_mouth)
        self._scene = lru_cache(maxsize=2 * _JAW_STEPS)(self._make_scene)

    def error(
        self, image: Float[np.ndarray, "height width 3"], picture: Picture, appearance: Appearance
    ) -> float | None:
        """Difference of the opening seen in a picture to the true one, radians; None where it shows no mouth."""
        mouth = self._mouth(picture)
        if mouth is None:
            return None
        seen = image[mouth.rows, mouth.columns]
        errors = np.array([np.mean((h.shade(appearance).rgb - seen) ** 2) for h in mouth.hits])
        return abs(_lowest(_offsets(), errors))

    def _trace_mouth(self, picture: Picture) -> _Mouth | None:
        hits = self._head.hits(picture)
        lips = np.argwhere(inside(hits.labels, ("lips",)))
        height, width = hits.labels.shape
        if len(lips) < _LEAST_LIPS * height * width:
            return None
        beside, below = (round(share * height) for share in _MARGIN)
        top, left = np.maximum(lips.min(axis=0) - beside, 0)
        bottom = min(int(lips[:, 0].max()) + below, height)
        right = min(int(lips[:, 1].max()) + beside, width)
        rows, columns = slice(int(top), bottom), slice(int(left), right)
        camera, samples = hits.camera, self._head.replay.settings.samples
        K = camera.K.copy()
        K[:2, 2] -= (columns.start, rows.start)
        size = (columns.stop - columns.start, rows.stop - rows.start)
        scenes = [self._scene(picture[0], picture[1], float(offset)) for offset in _offsets()]
        return _Mouth(rows, columns, [s.trace(camera.c2w, K, *size, samples) for s in scenes])

    def _make_scene(self, sequence: str, timestep: int, offset: float) -> Scene:
        frame = self._head.replay.motion[sequence][timestep]
        jaw = frame.jaw_pose + np.array([offset, 0, 0], np.float32)
        return Scene(self._head.identity, replace(frame, jaw_pose=jaw))


def _offsets() -> Float[np.ndarray, " angles"]:
    return np.linspace(-_JAW_RANGE, _JAW_RANGE, _JAW_STEPS)


def _lowest(places: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> float:
    """Where a sampled function is lowest: the vertex of the parabola through the lowest sample and its neighbours."""
    k = int(values.argmin())
    if k in (0, len(values) - 1):
        return float(places[k])
    before, at, after = values[k - 1 : k + 2]
    bend = before - 2 * at + after
    return float(places[k] + (places[1] - places[0]) * (0.5 * (before - after) / bend if bend > 0 else 0.0))
