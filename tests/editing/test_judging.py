"""The judge of edited views, on painted discs whose every movement and colour is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.judging.judge import judge_views
from edit3dgs_ns.editing.judging.registration import register, undone
from tests.painted_discs import GREEN, SIZE, VIEWS, views
from tools.measure.judge.views import scaled, shifted


@pytest.fixture(scope="module")
def request_of_discs() -> EditRequest:
    """All views before the edit."""
    images, places = views()
    return EditRequest(prompt="x", images=images, originals=images, canonical=places)


@pytest.fixture(scope="module")
def edits(request_of_discs) -> np.ndarray:
    """The good edit: everything on the disc turns dark where it was light, and green."""
    shown = np.isfinite(request_of_discs.canonical).all(axis=-1, keepdims=True)
    inverted = (1 - 0.8 * request_of_discs.originals) * GREEN
    return np.where(shown, inverted, request_of_discs.originals).astype(np.float32)


def faults(request, images):
    """The fault of every view."""
    return [verdict.fault for verdict in judge_views(request, list(images))]


def test_good_views_are_accepted_as_they_are(request_of_discs, edits):
    verdicts = judge_views(request_of_discs, list(edits))
    assert [v.fault for v in verdicts] == [None] * VIEWS and all(v.mended is None for v in verdicts)
    assert all(np.array_equal(v.image, image) for v, image in zip(verdicts, edits, strict=True))


@pytest.mark.parametrize(
    ("fault", "spoilt"),
    [
        ("not finite", lambda image, original: np.where(np.arange(SIZE)[:, None, None] == 70, np.inf, image)),
        ("one colour", lambda image, original: np.zeros_like(image)),
        ("one colour", lambda image, original: np.full_like(image, 0.6)),
        ("unchanged", lambda image, original: original),
        ("unchanged", lambda image, original: (original + 0.01).clip(0, 1)),
        ("unlike the others", lambda image, original: image[..., [1, 0, 2]]),
        ("moved", lambda image, original: shifted(image, 45.0)),
    ],
)
def test_a_bad_view_among_good_ones_is_refused_and_no_other(request_of_discs, edits, fault, spoilt):
    images = edits.copy()
    images[2] = spoilt(edits[2], request_of_discs.originals[2])
    assert faults(request_of_discs, images) == [None, None, fault, None]


@pytest.mark.parametrize(
    "move",
    [
        lambda i: shifted(i, 6.0, 1.0),
        lambda i: scaled(i, 1.02),
        lambda i: scaled(i, 0.9),
        lambda i: scaled(i, 1.1),
    ],
)
def test_a_small_movement_is_undone(request_of_discs, edits, move):
    images = edits.copy()
    images[1] = move(edits[1])
    verdicts = judge_views(request_of_discs, list(images))
    assert [v.fault for v in verdicts] == [None] * VIEWS
    assert [v.mended is not None for v in verdicts] == [False, True, False, False]
    inside = np.isfinite(request_of_discs.canonical[1]).all(axis=-1)
    before, after = (np.abs(image - edits[1])[inside].mean() for image in (images[1], verdicts[1].image))
    assert after < before
    left = register(edits[1], verdicts[1].image, inside)
    assert left is not None and left.displacement((SIZE, SIZE), inside) * SIZE < 0.3
    assert verdicts[1].record()["mended"]["scale"] == pytest.approx(verdicts[1].mended.scale, abs=1e-4)


@pytest.mark.parametrize(
    ("factor", "shift", "angle"), [(1.0, 3.3, 0.7), (1.03, 2.0, 2.0), (0.85, 0.0, 0.0), (1.2, 5.0, 4.0)]
)
def test_registration_finds_the_similarity_also_where_contrasts_are_inverted(
    request_of_discs, edits, factor, shift, angle
):
    moved = shifted(scaled(edits[0], factor), shift, angle)
    head = np.isfinite(request_of_discs.canonical[0]).all(axis=-1)
    found = register(request_of_discs.originals[0], moved, head)
    assert found is not None and found.scale == pytest.approx(factor, abs=0.004)
    np.testing.assert_allclose(found.shift, (shift * np.cos(angle), shift * np.sin(angle)), atol=0.35)
    back, known = undone(moved, found)
    assert known[head].mean() > 0.97 and np.abs(back - edits[0])[head].mean() < 0.03


def test_a_view_that_does_not_show_what_changed_may_stay_as_it_is(request_of_discs, edits):
    """The left part of the surface alone is edited; one view shows only the right part."""
    u = np.nan_to_num(request_of_discs.canonical[..., 0])
    edge = np.median(u[u > 0])
    left = (u < edge)[..., None]
    images = np.where(left, edits, request_of_discs.originals)
    hidden = request_of_discs.canonical.copy()
    hidden[3][u[3] < edge] = np.nan
    images[3] = request_of_discs.originals[3]
    request = replace(request_of_discs, canonical=hidden)
    assert faults(request, images) == [None] * VIEWS
    assert faults(request_of_discs, images) == [None, None, None, "unchanged"]


def test_where_nothing_may_change_nothing_has_to(request_of_discs):
    keep = np.ones((VIEWS, SIZE, SIZE), np.float32)
    request = replace(request_of_discs, keep_mask=keep)
    assert faults(request, request.originals) == [None] * VIEWS
    assert faults(request_of_discs, request.originals) == ["unchanged"] * VIEWS


def test_where_all_views_differ_none_is_to_blame(request_of_discs, edits):
    hues = [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)]
    images = np.stack([image[..., list(order)] for image, order in zip(edits, hues, strict=True)])
    assert "unlike the others" not in faults(request_of_discs, images)[1:3]


def test_anchors_are_never_refused(request_of_discs, edits):
    images = edits.copy()
    images[3] = images[3][..., [1, 0, 2]]
    request = replace(request_of_discs, anchors=(3,))
    assert faults(request, images)[3] is None
