"""What a camera shows of Gaussians, and what becomes of those that it never shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.regions import region_faces
from edit3dgs_ns.splats.binding import WorldGaussians
from edit3dgs_ns.splats.rest_surface import RestSurface
from edit3dgs_ns.splats.unseen import blending_weights, fill_unseen, keep_views, unseen_faces, visible_share
from edit3dgs_ns.splats.world_splats import WorldSplats

ASSETS = load_assets()
K = torch.tensor([[100.0, 0.0, 32.0], [0.0, 100.0, 32.0], [0.0, 0.0, 1.0]])


def splats(means: list[tuple[float, float, float]], opacities: list[float]) -> WorldSplats:
    count = len(means)
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(count, 4)
    gaussians = WorldGaussians(torch.tensor(means), quats, torch.full((count, 3), 0.05))
    return WorldSplats(gaussians, torch.tensor(opacities), torch.zeros(count, 1, 3))


def share_of(scene: WorldSplats) -> torch.Tensor:
    return visible_share(*blending_weights(scene, torch.eye(4), K, 64, 64), scene.opacities)


def test_share_of_what_stands_alone_hidden_and_outside() -> None:
    """Looking along +z: alone, in front of another, behind it, and beside the image."""
    scene = splats(
        [(-0.5, 0.0, 2.0), (0.3, 0.0, 1.5), (0.4, 0.0, 2.0), (5.0, 0.0, 2.0)], [0.5, 0.99, 0.9, 0.9]
    )
    share = share_of(scene)
    assert share[0] == pytest.approx(1.0, abs=0.03)
    assert share[1] == pytest.approx(1.0, abs=0.03)
    assert 0 < share[2] < 0.6
    assert share[3] == 0


def test_a_share_is_what_the_image_loses_with_the_gaussian() -> None:
    """The last in the row: what it adds to the sum of a white image, over what it would add alone."""
    both, front = splats([(0.0, 0.0, 1.0), (0.05, 0.0, 2.0)], [0.6, 0.8]), splats([(0.0, 0.0, 1.0)], [0.6])
    alone = splats([(0.05, 0.0, 2.0)], [0.8])

    def covered(scene: WorldSplats) -> float:
        from edit3dgs_ns.splats.rasterize import rasterize

        _, alpha, _ = rasterize(*scene.tensors, torch.eye(4)[None], K[None], 64, 64, sh_degree=0)
        return float(alpha.sum())

    share = share_of(both)[1]
    assert share == pytest.approx((covered(both) - covered(front)) / covered(alone), abs=0.02)


def test_a_face_is_unseen_only_with_all_of_its_gaussians() -> None:
    binding = torch.tensor([0, 0, 1, 1, 3])
    share = torch.tensor([0.0, 0.5, 0.0, 0.02, 0.9])
    assert unseen_faces(share, binding, 5).tolist() == [False, True, False, False, False]


@dataclass
class HalfSeen:
    """A head of one Gaussian per face, of which the half x < 0 was seen."""

    params: dict[str, Tensor]
    binding: Tensor
    share: Tensor
    surface: RestSurface
    true: Tensor
    """Colours that are symmetric."""


@pytest.fixture
def head() -> HalfSeen:
    surface = RestSurface(
        ASSETS.v_template.astype(np.float64), ASSETS.faces, np.zeros(len(ASSETS.faces), bool)
    )
    count = len(ASSETS.faces)
    x, y, z = torch.from_numpy(surface.middles).float().unbind(1)
    true = torch.stack([x.abs() * 5, y * 5, torch.sin(20 * z)], dim=1)
    seen = x < 0
    generator = torch.Generator().manual_seed(0)
    params = {
        "means": torch.where(seen[:, None], 0.0, torch.randn(count, 3, generator=generator) * 20),
        "scales": torch.zeros(count, 3),
        "quats": torch.randn(count, 4, generator=generator),
        "features_dc": torch.where(seen[:, None], true, 0.0),
        "features_rest": torch.randn(count, 3, 3, generator=generator),
        "opacities": torch.zeros(count, 1),
    }
    return HalfSeen(params, torch.arange(count), seen.float(), surface, true)


def test_the_unseen_side_takes_place_and_colour_from_the_other(head: HalfSeen) -> None:
    before = {name: value.clone() for name, value in head.params.items()}
    changed = fill_unseen(head.params, head.binding, head.share, head.surface)
    seen = head.share > 0
    assert torch.equal(changed, ~seen)
    for name, value in head.params.items():
        assert torch.equal(value[seen], before[name][seen]), name
    error = (head.params["features_dc"] - head.true)[changed].abs()
    assert error.mean() < 0.02
    assert (before["features_dc"] - head.true)[changed].abs().mean() > 0.2
    assert (head.params["means"][changed] == 0).all()
    assert (head.params["scales"][changed].exp().amax(1) < 1).all()
    assert torch.sigmoid(head.params["opacities"][changed]).min() > 0.9
    assert (head.params["features_rest"][changed] == 0).all()


def test_filling_again_changes_nothing(head: HalfSeen) -> None:
    fill_unseen(head.params, head.binding, head.share, head.surface)
    once = {name: value.clone() for name, value in head.params.items()}
    fill_unseen(head.params, head.binding, head.share, head.surface)
    assert all(torch.equal(value, once[name]) for name, value in head.params.items())


def test_what_is_held_stays(head: HalfSeen) -> None:
    held = torch.from_numpy(head.surface.middles[:, 1] > 0)
    before = {name: value.clone() for name, value in head.params.items()}
    changed = fill_unseen(head.params, head.binding, head.share, head.surface, held=held)
    assert torch.equal(changed, (head.share == 0) & ~held)
    assert all(torch.equal(value[held], before[name][held]) for name, value in head.params.items())


def test_hair_that_was_never_seen_has_the_colour_of_hair(head: HalfSeen) -> None:
    """Only the front of it was, and all of the skin around."""
    scalp = np.zeros(len(head.binding), bool)
    scalp[region_faces(ASSETS, "scalp")] = True
    hair = torch.tensor([0.5, 0.25, 0.125])
    inside, front = torch.from_numpy(scalp), torch.from_numpy(head.surface.middles[:, 2] > 0)
    head.share = (~inside | front).float()
    head.params["features_dc"] = torch.where(inside[:, None], hair, -1.0)
    surface = RestSurface(head.surface.vertices, head.surface.faces, scalp)
    changed = fill_unseen(head.params, head.binding, head.share, surface)
    assert torch.equal(changed, inside & ~front)
    torch.testing.assert_close(head.params["features_dc"][changed], hair.expand(int(changed.sum()), 3))


def test_colours_go_over_the_surface_and_not_through_the_head(head: HalfSeen) -> None:
    """The mouth's inside is red and nearer to the neck's back than its own front is; the nape was never seen."""
    inner = np.zeros(len(head.binding), bool)
    inner[region_faces(ASSETS, "mouth", "tongue", "teeth", "gums", "eyes")] = True
    nape = torch.from_numpy((head.surface.middles[:, 2] < -0.03) & ~inner)
    red, skin = torch.tensor([2.0, -2.0, -2.0]), torch.tensor([0.5, 0.4, 0.3])
    head.share = (~nape).float()
    head.params["features_dc"] = torch.where(torch.from_numpy(inner)[:, None], red, skin)
    changed = fill_unseen(head.params, head.binding, head.share, head.surface)
    assert torch.equal(changed, nape)
    error = (head.params["features_dc"][changed] - skin).abs().amax(1)
    assert error.max() < 0.05


@pytest.mark.parametrize("most", [0, 7, 10_000])
def test_what_changes_views_most_is_taken_back(head: HalfSeen, most: int) -> None:
    """Every change makes a difference of 1: those of the largest weights go until there are few enough."""
    before = {name: value.clone() for name, value in head.params.items()}
    changed = fill_unseen(head.params, head.binding, head.share, head.surface)
    filled = {name: value.clone() for name, value in head.params.items()}
    weight = torch.rand(len(changed), generator=torch.Generator().manual_seed(3))

    def difference() -> float:
        return float((head.params["means"] != before["means"]).any(dim=1).sum())

    left = keep_views(head.params, before, changed, weight, difference, most)
    assert left.sum() == min(most, int(changed.sum()))
    assert not (left & ~changed).any()
    if most == 7:
        assert weight[left].max() < weight[changed & ~left].min()
    for name, value in head.params.items():
        rows = left.reshape(-1, *[1] * (value.ndim - 1))
        assert torch.equal(value, torch.where(rows, filled[name], before[name]))


def test_nothing_seen_or_nothing_unseen_changes_nothing(head: HalfSeen) -> None:
    before = {name: value.clone() for name, value in head.params.items()}
    for share in (torch.zeros_like(head.share), torch.ones_like(head.share)):
        assert not fill_unseen(head.params, head.binding, share, head.surface).any()
    assert all(torch.equal(value, before[name]) for name, value in head.params.items())
