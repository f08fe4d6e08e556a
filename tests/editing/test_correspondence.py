"""Matches against true geometry: epipolar lines against a slow oracle, the rig against rays cast at a moving head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edit3dgs_ns.editing.agreement.matching import make_correspondence
from edit3dgs_ns.editing.agreement.token_grid import token_centres, tokens_from_pixels
from edit3dgs_ns.editing.editor import EditRequest
from tests import head_views
from tests.head_views import FRAME, GRID, HEIGHT, VIEWS, WIDTH, head_maps, head_request, token_pixels
from tests.true_head import TrueHead, project

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def heads() -> list[TrueHead]:
    """The head of every view."""
    return head_views.heads()


@pytest.fixture(scope="module")
def request_with_maps() -> EditRequest:
    """The views with canonical maps."""
    return head_request(canonical=head_maps())


# -- where tokens lie ----------------------------------------------------------------------------------------


def test_the_map_from_pixels_to_tokens_is_what_the_frame_does_to_a_picture():
    picture = torch.zeros(1, 3, HEIGHT, WIDTH)
    picture[0, :, 31:34, 50:53] = 1.0
    black = FRAME.enter(picture) * (FRAME.enter(torch.zeros_like(picture)) < 0.5)
    tokens = torch.nn.functional.adaptive_avg_pool2d(black, GRID)[0, 0].numpy()
    y, x = np.mgrid[: GRID[0], : GRID[1]] + 0.5
    centre = np.array([(x * tokens).sum(), (y * tokens).sum()]) / tokens.sum()
    carried = tokens_from_pixels(FRAME, GRID) @ [51.5, 32.5, 1]
    np.testing.assert_allclose(centre, carried[:2], atol=0.15)
    everywhere = np.arange(GRID[0] * GRID[1])
    back = np.c_[token_pixels(everywhere), np.ones(len(everywhere))] @ tokens_from_pixels(FRAME, GRID).T
    np.testing.assert_allclose(back[:, :2], token_centres(GRID), atol=1e-9)


# -- the rig -------------------------------------------------------------------------------------------------


def _truth(heads, request, view: int, key: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of a view that show the head; where their points are in a key view (token coordinates); how plainly hidden
    they are there: 0 seen, 1 hidden behind at least 15 mm."""
    tokens = np.arange(GRID[0] * GRID[1])
    face, weights = heads[view].hit(request.c2w[view], request.K[view], token_pixels(tokens))
    tokens = tokens[face >= 0]
    points = heads[key].place(face[tokens], weights[tokens])
    pixels = np.c_[project(points, request.c2w[key], request.K[key]), np.ones(len(points))]
    hidden = ~heads[key].seen(request.c2w[key], points, within=0.015)
    return tokens, (pixels @ tokens_from_pixels(FRAME, GRID).T)[:, :2], hidden


@pytest.mark.parametrize(
    ("view", "key"), [(0, 1), (2, 1), (3, 1), (0, 3), (4, 1)],
    ids=["left-front", "right-front", "other timestep", "other timestep and side", "same camera later"],
)  # fmt: skip
def test_rig_matches_are_where_the_surface_point_truly_is(heads, request_with_maps, view, key):
    request = request_with_maps
    matches = make_correspondence("rig", request, FRAME, CPU).match([view], [key], GRID, None, None)
    tokens, expected, hidden = _truth(heads, request, view, key)
    found = matches.index[0, 0].numpy()[tokens]
    matched = (found >= 0) & ~hidden
    error = np.linalg.norm(token_centres(GRID)[found[matched]] - expected[matched], axis=1)
    assert np.median(error) < 0.75 and np.quantile(error, 0.95) < 2.0
    assert matched.sum() > 0.85 * (~hidden).sum()


def test_what_a_key_view_does_not_show_has_no_match(heads, request_with_maps):
    request, key = request_with_maps, 2
    matches = make_correspondence("rig", request, FRAME, CPU).match([0], [key], GRID, None, None)
    tokens, _, hidden = _truth(heads, request, 0, key)
    found = matches.index[0, 0].numpy()
    # Right at the edge of what is seen a token shows both: look at points well away from anything that is seen.
    reach = heads[0].hit(request.c2w[0], request.K[0], token_pixels(tokens))
    points = heads[0].place(*reach)
    to_seen = np.linalg.norm(points[:, None] - points[None, ~hidden], axis=-1).min(axis=1)
    deep = hidden & (to_seen > 0.02)
    assert deep.sum() > 15 and (found[tokens[deep]] == -1).mean() > 0.9
    background = np.setdiff1d(np.arange(GRID[0] * GRID[1]), tokens)
    alone = [t for t in background if not np.isfinite(request.canonical[0]).all(-1).any()] or background[
        : GRID[1]
    ]
    assert (found[alone] == -1).all() and (matches.weight[0][:, alone] == 0).all()


def test_a_view_matches_itself(request_with_maps):
    index = (
        make_correspondence("rig", request_with_maps, FRAME, CPU)
        .match([1], [1], GRID, None, None)
        .index[0, 0]
    )
    known = index >= 0
    assert known.sum() > 100
    torch.testing.assert_close(index[known], torch.arange(len(index))[known])


def test_matches_do_not_depend_on_the_order_of_calls(request_with_maps):
    one = make_correspondence("rig", request_with_maps, FRAME, CPU)
    first = one.match([0, 3], [1, 2], GRID, None, None)
    one.match([2], [0], (8, 8), None, None)
    again = one.match([3], [2, 1], GRID, None, None)
    torch.testing.assert_close(first.index[1], again.index[0])
    assert [[1, 2][k] for k in first.keys[1]] == [[2, 1][k] for k in again.keys[0]]


# -- the blend -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rig", "epipolar"])
def test_weights_follow_the_distance_and_sum_to_one_where_there_is_a_match(request_with_maps, kind):
    request, views, keys = request_with_maps, [0, 3], [2, 1, 4]
    features = torch.randn(5, GRID[0] * GRID[1], 8, generator=torch.Generator().manual_seed(1))
    matches = make_correspondence(kind, request, FRAME, CPU).match(
        views, keys, GRID, features[views], features[keys]
    )
    assert matches.index.shape == matches.weight.shape == (2, 2, GRID[0] * GRID[1])
    total = matches.weight.sum(dim=1)
    found = (matches.index >= 0).any(dim=1)
    torch.testing.assert_close(total[found], torch.ones(int(found.sum())))
    assert (total[~found] == 0).all() and (matches.weight[matches.index < 0] == 0).all()
    centres = request.c2w[:, :3, 3]
    for row, view in enumerate(views):
        d = np.linalg.norm(centres[keys] - centres[view], axis=1)
        first, second = (keys[k] for k in matches.keys[row])
        assert d[matches.keys[row, 0]] <= d[matches.keys[row, 1]] <= np.sort(d)[1] + 1e-6 and first != second
        both = (matches.index[row] >= 0).all(dim=0)
        expected = d[matches.keys[row, 1]] / d[matches.keys[row]].sum()
        assert both.any()
        np.testing.assert_allclose(matches.weight[row, 0, both], expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["rig", "epipolar"])
def test_a_single_key_view_has_all_the_weight(request_with_maps, kind):
    features = torch.randn(5, GRID[0] * GRID[1], 8, generator=torch.Generator().manual_seed(1))
    matches = make_correspondence(kind, request_with_maps, FRAME, CPU).match(
        [0, 2], [1], GRID, features[[0, 2]], features[[1]]
    )
    assert (matches.keys == 0).all()
    found = matches.index[:, 0] >= 0
    assert (matches.weight[:, 0][found] == 1).all() and (matches.weight[:, 1] == 0).all()


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="canonical"):
        make_correspondence("rig", head_request(), FRAME, CPU)
    images = np.ones((1, 8, 8, 3), np.float32)
    with pytest.raises(ValueError, match="c2w and K"):
        make_correspondence("epipolar", EditRequest(prompt="x", images=images, originals=images), FRAME, CPU)
    with pytest.raises(ValueError, match="features"):
        make_correspondence("epipolar", head_request(), FRAME, CPU).match([0], [1], GRID, None, None)
    with pytest.raises(ValueError, match="at least one key view"):
        make_correspondence(
            "rig", head_request(canonical=np.ones((5, HEIGHT, WIDTH, 3), np.float32)), FRAME, CPU
        ).match([0], [], GRID, None, None)
    assert make_correspondence("none", head_request(), FRAME, CPU) is None


# -- epipolar lines ------------------------------------------------------------------------------------------


def _oracle(request, features, view: int, key: int) -> np.ndarray:
    """For every token: project its ray, sampled densely, into the key view; the most similar token near that trace."""
    K, c2w = request.K[view].astype(np.float64), request.c2w[view].astype(np.float64)
    centres = token_centres(GRID)
    pixels = token_pixels(np.arange(len(centres)))
    rays = (
        np.stack(
            [(pixels[:, 0] - K[0, 2]) / K[0, 0], -(pixels[:, 1] - K[1, 2]) / K[1, 1], -np.ones(len(pixels))],
            1,
        )
        @ c2w[:3, :3].T
    )
    similarity = (
        torch.nn.functional.normalize(features[view], dim=-1)
        @ torch.nn.functional.normalize(features[key], dim=-1).T
    )
    carry = tokens_from_pixels(FRAME, GRID)
    best = np.full(len(centres), -1)
    for token, ray in enumerate(rays):
        near, far = (
            (carry @ [*project((c2w[:3, 3] + depth * ray)[None], request.c2w[key], request.K[key])[0], 1])[:2]
            for depth in (0.5, 1.5)
        )
        along = (far - near) / np.linalg.norm(far - near)
        offset = centres - near
        away = np.abs(offset[:, 0] * along[1] - offset[:, 1] * along[0])
        allowed = np.flatnonzero(away <= 1.0)
        if len(allowed):
            best[token] = allowed[similarity[token, allowed].argmax()]
    return best


@pytest.mark.parametrize(("view", "key"), [(0, 1), (2, 0), (1, 2), (3, 4)])
def test_epipolar_matches_equal_a_slow_search(view, key, monkeypatch):
    from edit3dgs_ns.editing.agreement import epipolar

    monkeypatch.setattr(epipolar, "_CHUNK", 50 * GRID[0] * GRID[1])  # many chunks, the last one short
    request = head_request()
    features = torch.randn(5, GRID[0] * GRID[1], 16, generator=torch.Generator().manual_seed(2))
    matches = make_correspondence("epipolar", request, FRAME, CPU).match(
        [view], [key], GRID, features[[view]], features[[key]]
    )
    expected = _oracle(request, features, view, key)
    # A token whose distance from the line is 1 to the last digit may fall on either side.
    assert (matches.index[0, 0].numpy() == expected).mean() > 0.995


def test_the_true_point_lies_on_the_line_and_the_line_is_all_that_is_searched(heads):
    from edit3dgs_ns.editing.agreement.epipolar import two_view_geometry

    request = head_request()
    tokens, places, _ = _truth(heads, request, 0, 2)
    carry = tokens_from_pixels(FRAME, GRID)
    fundamental, is_line = two_view_geometry(
        carry @ request.K[0], request.c2w[0].astype(float), carry @ request.K[2], request.c2w[2].astype(float)
    )
    lines = np.c_[token_centres(GRID)[tokens], np.ones(len(tokens))] @ fundamental.T
    away = np.abs((lines * np.c_[places, np.ones(len(places))]).sum(1)) / np.linalg.norm(lines[:, :2], axis=1)
    assert is_line and len(tokens) > 100 and away.max() < 1e-3

    # All features equal: whatever is chosen lies within a token of the line.
    same = torch.ones(1, GRID[0] * GRID[1], 4)
    index = (
        make_correspondence("epipolar", request, FRAME, CPU)
        .match([0], [2], GRID, same, same)
        .index[0, 0]
        .numpy()
    )
    chosen = np.c_[token_centres(GRID)[index[tokens]], np.ones(len(tokens))]
    away = np.abs((lines * chosen).sum(1)) / np.linalg.norm(lines[:, :2], axis=1)
    assert (index[tokens] >= 0).all() and away.max() <= 1 + 1e-4


def test_cameras_with_one_centre_are_matched_at_the_point():
    views = (VIEWS[1], VIEWS[1])
    features = torch.ones(2, GRID[0] * GRID[1], 4)
    index = (
        make_correspondence("epipolar", head_request(views), FRAME, CPU)
        .match([0], [1], GRID, features[:1], features[1:])
        .index[0, 0]
    )
    away = np.linalg.norm(token_centres(GRID)[index] - token_centres(GRID), axis=1)
    assert away.max() <= 1 + 1e-6


def test_between_timesteps_features_alone_decide():
    """The head has moved: the line of the static scene would forbid the true match."""
    features = torch.randn(5, GRID[0] * GRID[1], 16, generator=torch.Generator().manual_seed(2))
    features[3] = features[1].roll(GRID[1] * 5 + 3, dims=0)
    index = make_correspondence("epipolar", head_request(), FRAME, CPU).match(
        [3], [1], GRID, features[[3]], features[[1]]
    )
    tokens = torch.arange(GRID[0] * GRID[1])
    torch.testing.assert_close(index.index[0, 0], (tokens - GRID[1] * 5 - 3) % len(tokens))
