"""Canonical maps and region shares against rays cast at the mesh."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edit3dgs_ns.splats.binding import WorldGaussians
from edit3dgs_ns.splats.rig_maps import Cameras, Surface, canonical_maps, region_shares
from edit3dgs_ns.splats.views import viewmats_from_c2w
from tests.true_head import TrueHead, camera, project

SIZE = 128
PIXEL = 0.36 / SIZE
"""Metres, at the head."""
REGIONS = ("eyes", "mouth", "lips", "nose", "scalp", "neck")


def _cameras(azimuth: float, extent: float = 0.36) -> Cameras:
    c2w, K = camera(azimuth, SIZE, SIZE, extent=extent)
    viewmats = viewmats_from_c2w(torch.from_numpy(c2w[None]).float())
    return Cameras(viewmats, torch.from_numpy(K[None]).float(), SIZE, SIZE)


def _truth(head: TrueHead, azimuth: float, extent: float = 0.36) -> tuple[np.ndarray, np.ndarray]:
    """Face and barycentric coordinates of what the ray through the middle of every pixel meets."""
    y, x = np.mgrid[:SIZE, :SIZE]
    c2w, K = camera(azimuth, SIZE, SIZE, extent=extent)
    return head.hit(c2w, K, np.stack([x.ravel(), y.ravel()], 1) + 0.5)


@pytest.mark.parametrize(("azimuth", "pose"), [(0.0, {}), (0.6, {"jaw": 0.3, "turn": -0.3})])
def test_pixels_show_the_rest_position_of_the_surface_that_a_ray_meets(azimuth, pose):
    head = TrueHead(**pose)
    face, weights = _truth(head, azimuth)
    found = canonical_maps(head.surface(), _cameras(azimuth))[0].reshape(-1, 3).numpy()
    both = (face >= 0) & np.isfinite(found).all(axis=1)
    error = np.linalg.norm(found[both] - TrueHead().place(face[both], weights[both]), axis=1)
    # A Gaussian reaches over its neighbours that are farther from the camera: about a pixel, more at a slant.
    assert np.median(error) < 1.2 * PIXEL and np.quantile(error, 0.95) < 4.5 * PIXEL
    assert both.sum() > 0.9 * (face >= 0).sum()


def test_a_faint_skin_does_not_let_the_inside_through():
    """Where the avatar lies on the mesh, the mesh says what is seen, however transparent the Gaussians are."""
    solid = TrueHead().surface("mouth", "teeth")
    inside = solid.regions.sum(dim=1) > 0
    faint = replace(solid, opacities=torch.where(inside, 0.95, 0.1))
    no_mesh = replace(solid, opacities=torch.full_like(solid.opacities, 1e-4))
    by_binding, by_mesh = (region_shares(faint, mesh, _cameras(0.3)).sum() for mesh in (no_mesh, solid))
    assert float(by_binding) > 100 and float(by_mesh) < 10


def _with_a_lock(mesh: Surface) -> tuple[Surface, torch.Tensor]:
    """The head with one Gaussian of the scalp three centimetres before the nose, and the place it is bound to."""
    lock = mesh.gaussians.means[mesh.regions[:, 1] > 0].mean(dim=0, keepdim=True) + torch.tensor([0, 0, 0.03])
    place = torch.tensor([[0.01, 0.1, 0.02]])
    gaussians = WorldGaussians(
        torch.cat([mesh.gaussians.means, lock]),
        torch.cat([mesh.gaussians.quats, torch.tensor([[1.0, 0, 0, 0]])]),
        torch.cat([mesh.gaussians.scales, torch.full((1, 3), 0.012)]),
    )
    opacities = torch.cat([mesh.opacities, torch.tensor([0.999])])
    regions = torch.cat([mesh.regions, torch.tensor([[1.0, 0.0]])])
    return Surface(gaussians, opacities, torch.cat([mesh.rest, place]), regions), place[0]


def test_what_stands_off_the_mesh_is_known_from_its_gaussians():
    mesh = TrueHead().surface("scalp", "nose")
    avatar, place = _with_a_lock(mesh)
    c2w, K = camera(0.0, SIZE, SIZE)
    x, y = project(avatar.gaussians.means[-1:].numpy(), c2w, K)[0].astype(int)
    before, after = (region_shares(a, mesh, _cameras(0.0))[0, y, x] for a in (mesh, avatar))
    assert before[1] > 0.9 and before[0] < 0.05
    assert after[0] > 0.95 and after[1] < 0.05
    found = canonical_maps(avatar, _cameras(0.0))[0, y, x]
    torch.testing.assert_close(found, place, atol=1e-3, rtol=0)


def test_what_the_avatar_leaves_open_is_background():
    mesh = TrueHead().surface("nose")
    bare = replace(mesh, opacities=torch.full_like(mesh.opacities, 1e-4))
    assert torch.isnan(canonical_maps(bare, _cameras(0.0))).all()
    assert float(region_shares(bare, mesh, _cameras(0.0)).max()) < 0.1


def test_places_at_an_edge_where_surfaces_mix_are_no_places():
    """From the side the chin stands before the neck and the shoulder: means across that edge lie in the air."""
    head = TrueHead()
    found = canonical_maps(head.surface(), _cameras(0.8))[0].reshape(-1, 3).numpy()
    found = found[np.isfinite(found).all(axis=1)]
    away = np.abs(head.mesh.nearest.signed_distance(found[:: len(found) // 400]))
    assert away.max() < 0.012


@pytest.mark.parametrize(
    ("regions", "extent"), [(("eyes", "mouth", "lips", "nose"), 0.16), (("scalp", "neck"), 0.36)]
)
def test_regions_cover_what_rays_meet_of_them_and_nothing_that_is_hidden(regions, extent):
    head = TrueHead(jaw=0.35)
    face, _ = _truth(head, 0.4, extent)
    surface = head.surface(*regions)
    shares = region_shares(surface, surface, _cameras(0.4, extent))[0].numpy()
    for column, name in enumerate(regions):
        found, true = shares[..., column].ravel() > 0.5, np.isin(face, head.assets.face_regions[name])
        assert true.sum() > 100, name
        # Parts that lie behind others (eyes behind lids, the mouth's inside) lose the pixels along their edges.
        least = 0.55 if name in ("eyes", "mouth") else 0.7
        assert (found & true).sum() / (found | true).sum() > least, name
    assert shares.min() >= 0 and shares.max() <= 1
