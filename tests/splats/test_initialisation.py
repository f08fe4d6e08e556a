"""Where Gaussians start: on every face, inside it, and about equally far apart."""

from __future__ import annotations

import pytest
import torch

from edit3dgs_ns.splats.binding import local_to_world, triangle_frames
from edit3dgs_ns.splats.initialisation import even_start


def mesh() -> tuple[torch.Tensor, torch.Tensor]:
    """Right triangles with legs of 1 to 8 mm, apart from each other and turned differently."""
    torch.manual_seed(0)
    legs = torch.arange(1, 9) * 1e-3
    corners = torch.zeros(8, 3, 3)
    corners[:, 1, 0] = corners[:, 2, 1] = legs
    turns = torch.linalg.qr(torch.randn(8, 3, 3)).Q
    corners = torch.einsum("fij,fkj->fki", turns, corners) + torch.randn(8, 1, 3)
    return corners.reshape(-1, 3), torch.arange(24).reshape(8, 3)


def test_one_on_every_face() -> None:
    vertices, faces = mesh()
    binding, means, scales = even_start(vertices, faces, triangle_frames(vertices, faces), spacing=0)
    assert binding.tolist() == list(range(8)) and (means == 0).all() and (scales == 0).all()


def test_as_many_as_the_area_asks_for_and_all_inside() -> None:
    vertices, faces = mesh()
    frames = triangle_frames(vertices, faces)
    binding, means, scales = even_start(vertices, faces, frames, spacing=0.002)
    counts = torch.bincount(binding)
    expected = [max(1, round((leg / 2) ** 2)) for leg in range(1, 9)]
    assert counts.tolist() == pytest.approx(expected, abs=1)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(len(binding), 1)
    world = local_to_world(means, quats, scales, binding, frames)
    corners = vertices[faces[binding]]
    edges = torch.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], dim=2)
    weights = torch.linalg.lstsq(edges, (world.means - corners[:, 0])[..., None]).solution[..., 0]
    assert (weights > 0).all() and (weights.sum(dim=1) < 1).all()
    rebuilt = corners[:, 0] + (edges @ weights[..., None])[..., 0]
    torch.testing.assert_close(rebuilt, world.means, atol=1e-6, rtol=0)  # in the face's plane
    # Together the Gaussians of a face cover what one of the face's size would.
    area = (world.scales[:, 0] ** 2).new_zeros(8).index_add(0, binding, world.scales[:, 0] ** 2)
    torch.testing.assert_close(area, frames.size**2, rtol=1e-4, atol=0)


def test_points_of_a_face_do_not_crowd() -> None:
    vertices, faces = mesh()
    frames = triangle_frames(vertices, faces)
    binding, means, _ = even_start(vertices, faces, frames, spacing=0.001)
    points = means[binding == 7] * frames.size[7]
    apart = torch.cdist(points, points) + torch.eye(len(points))
    assert len(points) > 30 and apart.min() > 0.25e-3
