"""What is measured on the 2D edits of a row's first round, and on the same pictures unedited."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from edit3dgs_ns.capture.rays import build_intersector
from tools.measure.ablation.expression import EYES_AND_MOUTH, LIPS_AND_LIDS, JawGauge, elsewhere, inside
from tools.measure.ablation.points import (
    Sighting,
    disagreement,
    other_moment,
    pairs_of,
    same_moment,
    sighting,
    surface_points,
)
from tools.measure.ablation.truth import Picture, TrueHead, picture_of


@dataclass(frozen=True)
class Batch:
    """The views of a round."""

    views: list[int]
    """Their numbers as training images."""
    pictures: list[Picture]
    originals: Float[np.ndarray, "views height width 3"]
    edited: Float[np.ndarray, "views height width 3"]


def read_batch(run: Path, images: Sequence[Path]) -> Batch:
    """The first round's edits, from the run's own store.

    Args:
        run: of `ns-train edit3dgs`.
        images: the training images of its capture, in order.

    Raises:
        FileNotFoundError: the run has no edits.
    """
    paths = sorted((run / "edits").glob("*/00000_*.png"))
    if not paths:
        raise FileNotFoundError(f"{run / 'edits'}: holds no edits of the first round.")
    views = [json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["view"] for path in paths]
    originals = [images[view] for view in views]
    pictures = [picture_of(path) for path in originals]
    return Batch(views, pictures, _read(originals), _read(paths))


def _read(paths: Sequence[Path]) -> Float[np.ndarray, "views height width 3"]:
    pictures = []
    for path in paths:
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)
    return np.stack(pictures)


class ViewMeasures:
    """Measures edited views of one capture.

    Args:
        head: the capture's truth.
    """

    def __init__(self, head: TrueHead):
        self._head, self._jaw = head, JawGauge(head)
        self._points = surface_points(head.identity.baked)
        self._sightings: dict[Picture, Sighting] = {}

    def measure(self, batch: Batch, edit: str) -> dict[str, Any]:
        """The row's figures that its 2D edits say, and further ones."""
        hues = [
            self._head.nearest_hue([image], [picture], edit)
            for image, picture in zip(batch.edited, batch.pictures, strict=True)
        ]
        true = np.stack(
            [self._head.render(p, edit, hue) for p, hue in zip(batch.pictures, hues, strict=True)]
        )
        # Of the truth all views have one look, and disagree in their light alone.
        one = self._head.nearest_hue(list(batch.edited), batch.pictures, edit)
        look = np.stack([self._head.render(picture, edit, one) for picture in batch.pictures])
        labels = [self._head.hits(picture).labels for picture in batch.pictures]
        open_parts, skin_parts = (
            [inside(x, names) for x in labels] for names in (EYES_AND_MOUTH, LIPS_AND_LIDS)
        )
        apart, perfect = self.disagreements(batch.edited, batch), self.disagreements(look, batch)
        return {
            "view_disagreement": apart[0],
            "time_disagreement": apart[1],
            "expression_error": _mean_where(batch.edited - true, open_parts),
            "change_outside_mask": _mean_where(
                batch.edited - batch.originals, [elsewhere(x) for x in labels]
            ),
            "lips_and_lids_error": _mean_where(batch.edited - true, skin_parts),
            "true_expression_change": _mean_where(true - batch.originals, open_parts),
            "jaw_error_degrees": self._jaw_error(batch, edit, hues),
            "true_view_disagreement": perfect[0],
            "true_time_disagreement": perfect[1],
            "hues": hues,
        }

    def disagreements(
        self, images: Float[np.ndarray, "views height width 3"], batch: Batch
    ) -> tuple[float, float]:
        """Between the views of one timestep, and between timesteps; each less that of the unedited images."""
        shown = [self._sighting(picture) for picture in batch.pictures]
        after, before = (
            np.stack([s.colors(image) for s, image in zip(shown, pictures, strict=True)])
            for pictures in (images, batch.originals)
        )
        pairs = (pairs_of(batch.pictures, belong) for belong in (same_moment, other_moment))
        between_views, between_times = (disagreement(after, p) - disagreement(before, p) for p in pairs)
        return between_views, between_times

    def _sighting(self, picture: Picture) -> Sighting:
        if picture not in self._sightings:
            scene = self._head.scene(*picture[:2])
            camera = self._head.replay.cameras[picture[2]]
            intersector = build_intersector(scene.vertices, scene.baked.faces)
            self._sightings[picture] = sighting(self._points, scene, camera, intersector)
        return self._sightings[picture]

    def _jaw_error(self, batch: Batch, edit: str, hues: Sequence[float | None]) -> float | None:
        """Mean over the views that show the mouth, degrees."""
        errors = [
            self._jaw.error(image, picture, self._head.appearance(edit, hue))
            for image, picture, hue in zip(batch.edited, batch.pictures, hues, strict=True)
        ]
        known = [error for error in errors if error is not None]
        return float(np.degrees(np.mean(known))) if known else None


def _mean_where(difference: Float[np.ndarray, "views height width 3"], where: Sequence[np.ndarray]) -> float:
    """Mean absolute difference over the chosen pixels of all views together."""
    return float(np.abs(difference).mean(axis=-1)[np.stack(where)].mean())
