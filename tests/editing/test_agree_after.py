"""Views that agree after they were edited: planted colours of single views go, detail and what is kept stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edit3dgs_ns.editing.editor import EditRequest, EditResult
from edit3dgs_ns.editing.own.agree_after import AgreeingEditor, agree_images
from tests.painted_discs import GREEN, SIZE, VIEWS, views

TINTS = np.array([[1.0, 0.8, 0.8], [0.8, 1.0, 0.85], [0.85, 0.85, 1.0], [0.75, 0.75, 0.75]], np.float32)
"""A colour for every view."""


@pytest.fixture(scope="module")
def batch() -> EditRequest:
    images, places = views()
    c2w = np.tile(np.eye(4, dtype=np.float32), (VIEWS, 1, 1))
    c2w[:, 0, 3] = np.arange(VIEWS) * 0.1
    K = np.tile(np.eye(3, dtype=np.float32), (VIEWS, 1, 1))
    return EditRequest(prompt="x", images=images, originals=images, canonical=places, c2w=c2w, K=K)


@pytest.fixture(scope="module")
def edits(batch) -> np.ndarray:
    head = np.isfinite(batch.canonical).all(axis=-1, keepdims=True)
    return np.where(head, batch.originals * GREEN, batch.originals).astype(np.float32)


def disagreement(batch, images) -> float:
    """Mean difference of views to the first one, at the same surface points (looked up exactly)."""
    places = np.round(batch.canonical[..., 0] / 0.0016)
    differences = []
    for row in range(30, SIZE - 30, 7):
        seen = []
        for view in range(VIEWS):
            shown = np.isfinite(places[view, row])
            seen.append(dict(zip(places[view, row][shown], images[view, row][shown], strict=True)))
        for place in set(seen[0]).intersection(*seen[1:]):
            differences += [np.abs(other[place] - seen[0][place]).mean() for other in seen[1:]]
    return float(np.mean(differences))


def tinted(batch, edits) -> np.ndarray:
    """Every view in a colour of its own."""
    head = np.isfinite(batch.canonical).all(axis=-1, keepdims=True)
    return np.where(head, edits * TINTS[:, None, None], edits).astype(np.float32)


def test_planted_colours_go_and_detail_stays(batch, edits):
    before = tinted(batch, edits)
    after = agree_images(batch, before)
    assert disagreement(batch, after) < 0.15 * disagreement(batch, before)
    inside = np.isfinite(batch.canonical).all(axis=-1)
    np.testing.assert_array_equal(after[~inside], before[~inside])
    detail = [np.diff(image, axis=2)[:, 60:100, 60:100].std() for image in (edits, after)]
    assert detail[1] > 0.7 * detail[0]


def test_views_that_agree_are_hardly_touched(batch, edits):
    assert np.abs(agree_images(batch, edits) - edits).mean() < 0.006


def test_one_unlike_view_follows_and_does_not_stain_the_others(batch, edits):
    images = edits.copy()
    head = np.isfinite(batch.canonical[2]).all(axis=-1, keepdims=True)
    images[2] = np.where(head, edits[2][..., [1, 0, 2]], edits[2])
    after = agree_images(batch, images)
    inside = np.isfinite(batch.canonical).all(axis=-1)
    for view in (0, 1, 3):
        assert np.abs(after[view] - edits[view])[inside[view]].mean() < 0.02
    assert (
        np.abs(after[2] - edits[2])[inside[2]].mean() < 0.3 * np.abs(images[2] - edits[2])[inside[2]].mean()
    )


def test_what_is_kept_and_anchors_stay_as_they_are(batch, edits):
    keep = np.zeros((VIEWS, SIZE, SIZE), np.float32)
    keep[:, 70:90, 70:90] = 1.0
    request = replace(batch, keep_mask=keep, anchors=(1,))
    before = tinted(batch, edits)
    after = agree_images(request, before)
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_allclose(after[:, 70:90, 70:90], before[:, 70:90, 70:90], atol=1e-6)
    follower, anchor = (
        images[view][np.isfinite(batch.canonical[view]).all(axis=-1)].mean(axis=0)
        for images, view in ((after, 3), (before, 1))
    )
    np.testing.assert_allclose(follower, anchor, atol=0.02)


def test_a_view_that_is_not_finite_is_not_listened_to(batch, edits):
    images = edits.copy()
    images[0, 80, 80] = np.nan
    after = agree_images(batch, images)
    assert np.isnan(after[0, 80, 80]).all() and np.isfinite(after[1:]).all()


def test_the_editor_hands_views_over_once_they_agree(batch, edits):
    class Tinting:
        settings = {"editor": "tinting"}  # noqa: RUF012
        views_depend = False

        def unknown_instruction(self, prompt):
            return f"never heard of {prompt}"

        def edit(self, request, progress=None, finished=None):
            progress(4, 4)
            return EditResult(tinted(request, edits), {"editor": "tinting"}, 7, 1.5)

    editor, told, given = AgreeingEditor(Tinting()), [], {}
    result = editor.edit(batch, lambda *p: told.append(p), lambda view, image: given.update({view: image}))
    assert editor.views_depend and editor.unknown_instruction("x") == "never heard of x" and told == [(4, 4)]
    assert editor.settings == {"editor": "tinting", "agree_after": "rig"} == result.settings
    np.testing.assert_array_equal(np.stack([given[view] for view in range(VIEWS)]), result.images)
    assert disagreement(batch, result.images) < 0.15 * disagreement(batch, tinted(batch, edits))
