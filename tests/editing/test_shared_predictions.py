"""What views share at latent resolution, against a plane and a head whose correspondences are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edit3dgs_ns.editing.agreement.correspondence import LayerFeatures
from edit3dgs_ns.editing.agreement.matching import make_correspondence
from edit3dgs_ns.editing.agreement.shared_predictions import SharedPredictions, agreed
from edit3dgs_ns.editing.agreement.sharing import SharingOptions
from edit3dgs_ns.editing.agreement.surface_grid import SurfaceGrid, corners
from edit3dgs_ns.editing.agreement.token_grid import token_centres, token_places, tokens_from_pixels
from edit3dgs_ns.editing.diffusion.loading import load_editor
from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.framing import Frame
from edit3dgs_ns.editing.predictions import VariancePreservingSpace
from tests.head_views import FRAME, GRID, head_maps, head_request, heads, token_pixels
from tests.plane_views import plane_request
from tests.true_head import project

CPU = torch.device("cpu")


def _rig(request: EditRequest, frame: Frame = FRAME):
    return make_correspondence("rig", request, frame, CPU)


# -- a plane -------------------------------------------------------------------------------------------------

PLANE = Frame.fit(64, 64, 32)
CELLS = (16, 16)
"""Latents of four pixels a side."""


def _noise(views: int, size=CELLS, seed: int = 0) -> torch.Tensor:
    return torch.randn(views, 4, *size, generator=torch.Generator().manual_seed(seed))


def test_a_view_takes_what_the_key_view_has_between_its_latents():
    """Moved by ten pixels: two and a half latents."""
    values = _noise(2)
    result = agreed(values, (0,), _rig(plane_request(), PLANE))
    assert torch.equal(result[0], values[0])
    expected = (values[0, :, :, 2:-1] + values[0, :, :, 3:]) / 2
    torch.testing.assert_close(result[1, :, 3:-3, 3:10], expected[:, 3:-3, 3:10], atol=1e-4, rtol=1e-4)
    assert torch.equal(result[1, :, :, 14:], values[1, :, :, 14:])


def test_key_views_take_one_value_and_not_the_plain_mean():
    """The second sees the plane compressed to a third: at a slant. What both see is nearly what the first has."""
    values = torch.stack([torch.zeros(4, *CELLS), torch.ones(4, *CELLS)])
    result = agreed(values, (0, 1), _rig(plane_request((0.0, 0.0), (1.0, 3.0)), PLANE))
    first, second = result[0, :, 4:-4, 3:12], result[1, :, 4:-4, 1:4]
    assert first.max() < 0.05 and second.max() < 0.05
    assert (first - first.mean()).abs().max() < 0.02 and (second.mean() - first.mean()).abs() < 0.02


def test_equally_good_key_views_meet_in_the_middle():
    values = torch.stack([torch.zeros(4, *CELLS), torch.ones(4, *CELLS)])
    result = agreed(values, (0, 1), _rig(plane_request((0.0, 0.0)), PLANE))
    torch.testing.assert_close(result, torch.full_like(values, 0.5))


def test_where_a_key_view_ends_its_values_fade_out():
    """The first view does not show the right half. Towards its edge the others go back to their own, step by step."""
    values = torch.stack([torch.ones(4, *CELLS), torch.zeros(4, *CELLS)])
    request = plane_request((0.0, 0.0), hidden=slice(32, 64))
    row = agreed(values, (0,), _rig(request, PLANE))[1, 0, 8]
    assert (row[:5] > 0.99).all() and (row[8:] == 0).all()
    assert (row.diff() <= 1e-6).all() and row.diff().abs().max() < 0.75 and ((row > 0.1) & (row < 0.9)).any()


def test_what_no_key_view_shows_is_agreed_on_by_those_that_show_it():
    """The right half, which the key view does not show: the mean of the two others, seen equally well."""
    values = torch.stack([torch.full((4, *CELLS), v) for v in (0.0, 1.0, 3.0)])
    request = plane_request((0.0,) * 3, (1.0,) * 3, hidden=slice(32, 64))
    result = agreed(values, (0,), _rig(request, PLANE))
    torch.testing.assert_close(result[1:, :, :, 8:], torch.full_like(result[1:, :, :, 8:], 2.0))
    torch.testing.assert_close(result[1:, :, :, :6], torch.zeros_like(result[1:, :, :, :6]))
    torch.testing.assert_close(result[1], result[2])


def test_one_view_keeps_every_bit():
    values = _noise(1)
    assert torch.equal(agreed(values, (0,), _rig(plane_request((0.0,), (1.0,)), PLANE)), values)


# -- a head --------------------------------------------------------------------------------------------------

LATENT = GRID


def _same_points(view: int, other: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells of a view whose spot another view truly shows, and where on its grid: (x, y) in cells."""
    request = head_request()
    cells = np.arange(LATENT[0] * LATENT[1])
    face, weights = heads()[view].hit(request.c2w[view], request.K[view], token_pixels(cells, LATENT))
    cells = cells[face >= 0]
    points = heads()[other].place(face[cells], weights[cells])
    seen = heads()[other].seen(request.c2w[other], points, within=0.002)
    pixels = np.c_[project(points, request.c2w[other], request.K[other]), np.ones(len(points))]
    place = (pixels @ tokens_from_pixels(FRAME, LATENT).T)[:, :2] - 0.5
    return cells[seen], place[seen]


def _sampled(values: torch.Tensor, place: np.ndarray) -> torch.Tensor:
    """(places, channels): values (channels, h, w) between the cells."""
    size = torch.tensor([LATENT[1], LATENT[0]])
    grid = (2 * torch.from_numpy(place).float() + 1) / size - 1
    return torch.nn.functional.grid_sample(values[None], grid[None, None], align_corners=False)[0, :, 0].T


def _disagreement(values: torch.Tensor) -> float:
    """Median difference between the values of one true spot in different views."""
    found = []
    for view in range(len(values)):
        for other in range(len(values)):
            if other != view:
                cells, place = _same_points(view, other)
                own = values[view].flatten(1).T[torch.from_numpy(cells)]
                found.append((own - _sampled(values[other], place)).abs().mean(dim=1))
    return float(torch.cat(found).median())


def _painted(offsets: torch.Tensor) -> torch.Tensor:
    """Latents that show a smooth pattern on the head, and over it a colour (views, channels) for each view."""
    position = np.nan_to_num(token_places(head_maps(), FRAME, LATENT).position)
    position = torch.from_numpy(position).movedim(2, 1).unflatten(2, LATENT)
    pattern = torch.sin(40 * torch.cat([position, position[:, :1] + position[:, 1:2]], dim=1))
    return pattern + offsets[:, :, None, None]


@pytest.mark.parametrize("keys", [(1,), (0, 2), (0, 1, 2, 3, 4)])
def test_unlike_colours_of_one_spot_become_one(keys):
    """Across cameras and timesteps, whichever views are key views."""
    values = _painted(torch.randn(5, 4, generator=torch.Generator().manual_seed(3)))
    before, after = (_disagreement(v) for v in (values, agreed(values, keys, _rig(_maps()))))
    assert before > 0.5 and after < 0.35 * before


def test_what_agrees_already_is_left_nearly_as_it_is():
    values = _painted(torch.zeros(5, 4))
    changed = (agreed(values, (0, 2), _rig(_maps())) - values).abs()
    assert changed.mean() < 0.02 and changed.max() < 1.0


def test_points_between_cells_are_found_better_than_the_nearest_cell():
    correspondence = _rig(_maps())
    cells, place = _same_points(0, 1)
    nearest = correspondence.match([0], [1], LATENT).index[0, 0].numpy()[cells]
    surface = correspondence._surface(1, LATENT)
    points = correspondence._surface(0, LATENT).position.reshape(-1, 3)[cells]
    known = (nearest >= 0) & np.isfinite(points).all(axis=1)
    found = corners(surface, points[known], nearest[known])
    centres = token_centres(LATENT) - 0.5
    between = (found.share[..., None] * centres[found.index]).sum(axis=1)
    error, coarse = (np.linalg.norm(p - place[known], axis=1) for p in (between, centres[nearest[known]]))
    # What is left is the canonical maps' own error, a quarter of a cell towards the camera.
    assert np.median(error) < 0.7 * np.median(coarse) and np.median(error) < 0.35


def _maps(order=range(5), **fields) -> EditRequest:
    from tests.head_views import VIEWS

    order = list(order)
    return head_request(tuple(VIEWS[v] for v in order), canonical=head_maps()[order], **fields)


@pytest.mark.parametrize("kind", ["rig", "epipolar"])
def test_the_order_of_the_views_changes_nothing(kind):
    order, keys = [3, 0, 4, 2, 1], (0, 1, 3)
    place = {view: order.index(view) for view in order}
    values, layer = _noise(5, LATENT), _layer(keys)
    one = agreed(values, keys, make_correspondence(kind, _maps(), FRAME, CPU), layer)
    keys_again = tuple(sorted(place[key] for key in keys))
    again = agreed(
        values[order],
        keys_again,
        make_correspondence(kind, _maps(order), FRAME, CPU),
        _layer(keys_again, order),
    )
    torch.testing.assert_close(again, one[order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["rig", "epipolar"])
def test_the_background_is_untouched(kind):
    values = _noise(5, LATENT)
    result = agreed(values, (0, 2), make_correspondence(kind, _maps(), FRAME, CPU), _layer((0, 2)))
    empty = torch.from_numpy(~np.isfinite(head_maps()).all(-1)).float()[:, None]
    away = torch.nn.functional.adaptive_avg_pool2d(FRAME.enter(empty), LATENT)[:, 0] > 0.999
    if kind == "rig":
        assert torch.equal(result.movedim(1, -1)[away], values.movedim(1, -1)[away])
        assert not torch.equal(result, values)


def test_grids_without_neighbours_or_slopes_are_sampled_at_their_cells():
    position = np.full((4, 4, 3), np.nan)
    position[1, 1] = (0.0, 0.0, 0.0)
    position[3, 2] = (0.01, 0.0, 0.0)
    spacing = np.where(np.isfinite(position[..., 0]), 0.002, np.nan)
    grid = SurfaceGrid(position, spacing)
    found = corners(grid, np.array([[0.0005, 0, 0], [0.01, 0, 0]]), np.array([5, 14]))
    assert found.index[found.share > 0].tolist() == [5, 14] and np.allclose(found.share.sum(1), 1)
    assert grid.solid.max() == 0 and grid.density[1, 1] == pytest.approx(1 / 0.002**2)


# -- epipolar lines ------------------------------------------------------------------------------------------


def _layer(keys, order=range(5)) -> LayerFeatures:
    """Features that are alike exactly where the same spot is shown, and what attention would have matched by them."""
    request, order = _maps(order), list(order)
    position = token_places(request.canonical, FRAME, GRID).position
    waves = np.random.default_rng(0).normal(size=(3, 64)) * 60
    features = np.concatenate([np.sin(position @ waves), np.cos(position @ waves)], axis=-1)
    away = np.random.default_rng(1).normal(size=features.shape[1:])
    features = torch.from_numpy(np.where(np.isfinite(features), features, away)).float()
    correspondence = make_correspondence("epipolar", request, FRAME, CPU)
    others = [view for view in range(5) if view not in keys]
    found = {
        view: correspondence.match([view], keys, GRID, features[[view]], features[list(keys)])
        for view in others
    }
    return LayerFeatures(GRID, features[list(keys)], found)


def test_along_epipolar_lines_key_views_agree_and_the_others_follow():
    keys = (0, 1, 2)
    values = _painted(torch.randn(5, 4, generator=torch.Generator().manual_seed(3)))
    result = agreed(values, keys, make_correspondence("epipolar", _maps(), FRAME, CPU), _layer(keys))
    assert _disagreement(result) < 0.5 * _disagreement(values)


def test_tokens_of_several_latents_hand_over_what_lies_within_them():
    from edit3dgs_ns.editing.agreement.epipolar import _latent_matches

    index, weight = torch.tensor([[3], [1], [6], [0]]), torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    spots = _latent_matches(index, weight, (2, 2), (4, 4))
    # Tokens 2 x 2 of 2 x 2 latents; token 6 is token 2 of the second key view.
    assert spots.index[:, 0].view(4, 4)[:2].tolist() == [[10, 11, 2, 3], [14, 15, 6, 7]]
    assert spots.index[:, 0].view(4, 4)[2:, :2].tolist() == [[24, 25], [28, 29]]
    assert spots.trust.view(4, 4)[2:, 2:].max() == 0 and spots.trust.sum() == 12


# -- in the loop ---------------------------------------------------------------------------------------------


class _FakeScheduler:
    """Predicts what is clean; pure noise."""

    alphas_cumprod = torch.linspace(0.999, 0.001, 1000)

    class config:
        prediction_type = "v_prediction"


def test_predictions_are_shared_down_to_a_noise_level():
    values, noisy = _noise(2), _noise(2, seed=1)
    space = VariancePreservingSpace(_FakeScheduler)
    share = SharedPredictions(space, _rig(plane_request((0.0, 0.0)), PLANE), until=space.noise_level(500))
    assert torch.equal(share(values, noisy, 499, (0,)), values)
    shared = share(values, noisy, 500, (0,))
    clean = space.clean(shared, noisy, 500)
    assert torch.equal(shared[0], values[0])
    torch.testing.assert_close(clean[0], clean[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["rig", "epipolar"])
def test_anchors_are_what_they_are_known_to_be_and_lead_the_others(kind):
    """View 2 was edited before, to 7. The UNet says 0 for it and 1 for the others; view 0 is a key view as well."""
    values, noisy = torch.stack([torch.full((4, *CELLS), v) for v in (1.0, 1.0, 0.0)]), _noise(3, seed=1)
    K = np.tile(np.array([[100, 0, 32], [0, 100, 32], [0, 0, 1]], np.float32), (3, 1, 1))
    request = replace(
        plane_request((0.0,) * 3, (1.0,) * 3, anchors=(2,)),
        K=K,
        c2w=np.tile(np.eye(4, dtype=np.float32), (3, 1, 1)),
    )
    found = make_correspondence(kind, request, PLANE, CPU)
    known, keys = torch.full((1, 4, *CELLS), 7.0), (0, 2)
    layer = None
    if kind == "epipolar":
        features = torch.randn(16 * 16, 32, generator=torch.Generator().manual_seed(2)).expand(3, -1, -1)
        matches = {1: found.match([1], keys, CELLS, features[1:2], features[list(keys)])}
        layer = LayerFeatures(CELLS, features[list(keys)], matches)
    space = VariancePreservingSpace(_FakeScheduler)
    start = space.moved(values, values - space.clean(values, noisy, 500), 500)
    for anchors, latents in (((2,), known), ((), None)):
        share = SharedPredictions(space, found, until=0, anchors=anchors, known=latents)
        clean = space.clean(share(start, noisy, 500, keys, layer), noisy, 500)
        if anchors:
            torch.testing.assert_close(clean[2], known[0])
            assert (clean[:2] - 7).abs().max() < (0.05 if kind == "rig" else 3.1)
        else:
            assert clean.max() < 1.1


def _final_latents(editor, request, monkeypatch) -> torch.Tensor:
    decoded, decode = [], editor.vae.decode
    with monkeypatch.context() as patch:
        patch.setattr(editor.vae, "decode", lambda z, **k: (decoded.append(z), decode(z, **k))[1])
        editor.edit(request)
    return torch.cat(decoded)


@pytest.mark.parametrize("kind", ["rig", "epipolar"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_views_of_one_plane_come_out_the_same_from_unlike_noise(
    make_tiny_editor, monkeypatch, kind, prediction_type
):
    folder = make_tiny_editor(prediction_type=prediction_type)
    K = np.tile(np.array([[100, 0, 32], [0, 100, 32], [0, 0, 1]], np.float32), (4, 1, 1))
    request = replace(
        plane_request((0.0,) * 4, (1.0,) * 4), K=K, c2w=np.tile(np.eye(4, dtype=np.float32), (4, 1, 1)),
        prompt="make him look older", shared_noise=False, steps=4,
    )  # fmt: skip
    spread = {}
    for until in (0, 1):
        sharing = SharingOptions(kind, self_attention_below=0, share_prediction_until=until)
        editor = load_editor(folder, sharing=sharing)
        latents = _final_latents(editor, request, monkeypatch)
        spread[until] = latents.std(dim=0).mean().item()
        assert editor.settings["share_prediction_until"] == {0: 0, 1: None}[until]
    assert spread[0] < {"rig": 0.5, "epipolar": 0.95}[kind] * spread[1]


def test_the_split_into_forwards_and_one_view_change_nothing(tiny_editor_folder):
    sharing = SharingOptions("rig", self_attention_below=0, share_prediction_until=0)
    request = replace(
        plane_request((0.0, 10.0, 20.0), (1.0,) * 3),
        prompt="make him look older",
        steps=3,
        shared_noise=False,
    )
    whole, split = (
        load_editor(tiny_editor_folder, sharing=sharing, views_per_forward=size).edit(request).images
        for size in (3, 1)
    )
    np.testing.assert_allclose(split, whole, atol=1e-4)
    one = replace(plane_request((0.0,), (1.0,)), prompt="make him look older", steps=3)
    alone = load_editor(tiny_editor_folder).edit(one)
    shared = load_editor(tiny_editor_folder, sharing=sharing).edit(one)
    np.testing.assert_allclose(shared.images, alone.images, atol=1e-5)
    assert shared.unet_evaluations == alone.unet_evaluations


def test_what_is_kept_stays_the_original_exactly(tiny_editor_folder, monkeypatch):
    sharing = SharingOptions("rig", self_attention_below=0, share_prediction_until=0)
    editor = load_editor(tiny_editor_folder, sharing=sharing)
    keep = np.zeros((3, 64, 64), np.float32)
    keep[:, :24] = 1
    request = plane_request((0.0, 10.0, 20.0), (1.0,) * 3, keep_mask=keep, steps=4)
    latents = _final_latents(editor, request, monkeypatch)
    canvas = torch.from_numpy(request.originals).permute(0, 3, 1, 2)
    with torch.no_grad():
        original = editor.vae.encode(2 * canvas - 1).latent_dist.mode()
    rows = latents.shape[2] * 24 // 64
    torch.testing.assert_close(latents[:, :, :rows], original[:, :, :rows], atol=1e-4, rtol=1e-4)
    assert (latents[:, :, rows + 4 :] - original[:, :, rows + 4 :]).abs().mean() > 0.05
