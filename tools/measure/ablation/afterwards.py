"""Views of editors that show no predictions: each in a planted colour, before and after they are made to agree.

The edits are the true ones of synthetic people; the colour multiplies the head, another one in every view, as a model does that
decides about the look of every view by itself. Points of the true surface say how far views differ (see `points`), less what the
unedited views differ by.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from rich.table import Table

from edit3dgs_ns.editing.own.agree_after import agree_images
from edit3dgs_ns.synthetic.tracing import build_intersector
from tools.measure.ablation.points import disagreement, sighting, surface_points
from tools.measure.judge.views import Batch, batches

EDITS = ("older", "green_skin", "bronze_statue")
_WEAKEST = 0.65
"""A planted colour takes at most 1 - this of a channel."""

Images = Float[np.ndarray, "views height width 3"]


def measure_afterwards(people: int, size: int) -> list[dict[str, Any]]:
    """A row for each person and edit.

    Args:
        people: batches of views.
        size: side of the images, pixels.
    """
    rows = []
    for number, batch in enumerate(batches(people, size)):
        measure = _Disagreement(batch)
        for edit in EDITS:
            truth = batch.truth(edit)
            planted = _planted(batch, truth, number)
            agreed = agree_images(batch.request("x"), planted)
            unplanted = agree_images(batch.request("x"), truth)
            row = {"planted": planted, "agreed": agreed, "true": truth, "true_agreed": unplanted}
            rows.append(
                {
                    "person": number,
                    "edit": edit,
                    **{
                        f"view_disagreement_{name}": round(measure(images), 5) for name, images in row.items()
                    },
                    "detail_kept": round(_detail(batch, agreed) / _detail(batch, planted), 4),
                }
            )
    return rows


class _Disagreement:
    """How far views of one batch differ at the same points."""

    def __init__(self, batch: Batch):
        points = surface_points(batch.replay.identity.baked)
        scene = batch.hits[0].scene
        intersector = build_intersector(scene.vertices, scene.baked.faces)
        self._shown = [sighting(points, scene, hits.camera, intersector) for hits in batch.hits]
        self._before = self._plain(batch.originals)

    def __call__(self, images: Images) -> float:
        """Less that of the unedited views."""
        return self._plain(images) - self._before

    def _plain(self, images: Images) -> float:
        colors = np.stack([s.colors(image) for s, image in zip(self._shown, images, strict=True)])
        count = len(images)
        return disagreement(colors, [(a, b) for a in range(count) for b in range(a + 1, count)])


def _planted(batch: Batch, images: Images, seed: int) -> Images:
    rng = np.random.default_rng(seed)
    colors = rng.uniform(_WEAKEST, 1.0, (len(images), 1, 1, 3)).astype(np.float32)
    head = np.isfinite(batch.canonical).all(axis=-1, keepdims=True)
    return np.where(head, images * colors, images).astype(np.float32)


def _detail(batch: Batch, images: Images) -> float:
    """Mean difference of neighbouring pixels of the head."""
    head = np.isfinite(batch.canonical).all(axis=-1)
    inside = head[:, :, 1:] & head[:, :, :-1]
    return float(np.abs(np.diff(images, axis=2)).mean(axis=-1)[inside].mean())


def table(rows: list[dict[str, Any]]) -> Table:
    """Means over the people, for each edit."""
    names = ("planted", "agreed", "true", "true_agreed")
    result = Table(
        "edit", *(f"views differ, {name}" for name in names), "detail kept", title="Agreement afterwards"
    )
    for edit in dict.fromkeys(row["edit"] for row in rows):
        own = [row for row in rows if row["edit"] == edit]
        cells = [f"{np.mean([row[f'view_disagreement_{name}'] for row in own]):.4f}" for name in names]
        result.add_row(edit, *cells, f"{np.mean([row['detail_kept'] for row in own]):.2f}")
    return result
