"""Per-pixel maps of a rendered avatar: the surface point on the canonical head, and coverage of named regions of the rig.

Rest positions and regions go through the rasterizer as channels, with the weights of the colours.

Surface points come from the avatar's own Gaussians, so that two views of one point agree on any material (skin, hair, cloth).
    Regions come from the posed mesh, covered with opaque Gaussians, wherever the avatar lies on it: a trained skin is seldom
    opaque, and Gaussians of the mouth's inside shine through or have moved to the cheek. Gaussians off the mesh (hair above
    all) have the region of the faces that they are bound to. Occluded surfaces have no share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edit3dgs_ns.splats.binding import WorldGaussians, triangle_frames
from edit3dgs_ns.splats.rasterize import RasterizeMode, rasterize

_COVERED = 0.5
"""A pixel with less coverage than this shows what lies behind."""
_STANDS_OFF = 0.01
"""The avatar is not on the mesh where it is this much nearer to the camera, metres."""
LARGEST_SPREAD = 0.02
"""Rest positions that mix in one pixel may lie this far apart (metres, standard deviation). Trained hair is a layer of about half
that; two surfaces at an edge, like chin and neck, are farther apart."""
_TILES = ((4 / 6, 1 / 6, 1 / 6), (1 / 6, 4 / 6, 1 / 6), (1 / 6, 1 / 6, 4 / 6), (1 / 3, 1 / 3, 1 / 3))
"""Barycentric coordinates of the Gaussians that cover a face of the mesh: the middles of its four equal parts."""
_TILE_SIZE, _TILE_OPACITY = 0.18, 0.95
"""Standard deviation of such a Gaussian in sizes of the face, and its opacity: the least that leaves no holes."""


@dataclass(frozen=True)
class Surface:
    """Gaussians of one timestep, with their rest positions and regions."""

    gaussians: WorldGaussians
    opacities: Float[Tensor, " gaussians"]
    """In [0, 1]."""
    rest: Float[Tensor, "gaussians 3"]
    """Points on the canonical head, metres."""
    regions: Float[Tensor, "gaussians regions"]
    """1 for every Gaussian in a region, else 0; there may be no region at all."""


def mesh_surface(
    vertices: Float[Tensor, "vertices 3"],
    rest_vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    face_regions: Float[Tensor, "faces regions"],
) -> Surface:
    """The posed mesh, covered with opaque Gaussians.

    Args:
        vertices: posed, metres.
        rest_vertices: on the canonical head.
        faces: corners.
        face_regions: 1 for every face in a region, else 0.
    """
    weights = vertices.new_tensor(_TILES)
    owner = torch.arange(len(faces), device=faces.device).repeat_interleave(len(weights))
    frames = triangle_frames(vertices, faces)
    size = _TILE_SIZE * frames.size[owner]
    means, rest = (
        torch.einsum("fcx,gc->fgx", corners[faces], weights).reshape(-1, 3)
        for corners in (vertices, rest_vertices)
    )
    flat = torch.stack([size, 0.1 * size, size], dim=1)  # the second axis is the face's normal
    gaussians = WorldGaussians(means, frames.quats[owner], flat)
    return Surface(gaussians, torch.full_like(size, _TILE_OPACITY), rest, face_regions[owner])


@dataclass(frozen=True)
class Cameras:
    """Cameras of one image size."""

    viewmats: Float[Tensor, "views 4 4"]
    """camera_from_world, OpenCV axes."""
    Ks: Float[Tensor, "views 3 3"]
    """Intrinsics in pixels."""
    width: int
    height: int
    rasterize_mode: RasterizeMode = "classic"
    """As for the images."""


@torch.no_grad()
def canonical_maps(avatar: Surface, cameras: Cameras) -> Float[Tensor, "views height width 3"]:
    """The point on the canonical head that every pixel shows, metres; NaN on the background and where distant points mix."""
    # Relative to the head's middle: the spread below is a small difference of two squares.
    origin = avatar.rest.mean(dim=0)
    local = avatar.rest - origin
    drawn = _draw(avatar, torch.cat([local, local.square().sum(dim=-1, keepdim=True)], dim=-1), cameras)
    mean, square = drawn.channels.split([3, 1], dim=-1)
    spread = (square - mean.square().sum(dim=-1, keepdim=True)).clamp(min=0).sqrt()
    sure = (drawn.alpha[..., None] >= _COVERED) & (spread <= LARGEST_SPREAD)
    return torch.where(sure, mean + origin, torch.nan)


@torch.no_grad()
def region_shares(
    avatar: Surface, mesh: Surface, cameras: Cameras
) -> Float[Tensor, "views height width regions"]:
    """How much of every pixel each region covers, in [0, 1].

    Args:
        avatar: as it is drawn.
        mesh: its mesh in the same pose, with the same regions; see `mesh_surface`.
        cameras: where from.
    """
    drawn, solid = (_draw(surface, surface.regions, cameras) for surface in (avatar, mesh))
    off_mesh = (solid.alpha < _COVERED) | (drawn.depth < solid.depth - _STANDS_OFF)
    shares = torch.where(off_mesh[..., None], drawn.channels, solid.channels)
    return (shares * drawn.alpha[..., None]).clamp(0, 1)


@dataclass(frozen=True)
class _Layer:
    """Renders of a surface; means over the Gaussians of each pixel."""

    channels: Float[Tensor, "views height width channels"]
    alpha: Float[Tensor, "views height width"]
    depth: Float[Tensor, "views height width"]


def _draw(surface: Surface, channels: Float[Tensor, "gaussians channels"], cameras: Cameras) -> _Layer:
    image, alpha, _ = rasterize(
        surface.gaussians.means,
        surface.gaussians.quats,
        surface.gaussians.scales,
        surface.opacities,
        channels.to(surface.rest),
        cameras.viewmats,
        cameras.Ks,
        cameras.width,
        cameras.height,
        render_mode="RGB+ED",
        rasterize_mode=cameras.rasterize_mode,
    )
    return _Layer(image[..., :-1] / alpha.clamp(min=1e-6), alpha[..., 0], image[..., -1])
