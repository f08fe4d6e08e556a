"""What the viewer draws of an avatar besides its splats: the mesh underneath, and the named regions of the rig in colours.

Both go through the rasterizer of the splats (the mesh as opaque Gaussians that cover its faces), so that they need no other
renderer and line up with the avatar pixel by pixel.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.splats.binding import local_to_world, triangle_frames
from edit3dgs_ns.splats.rasterize import rasterize
from edit3dgs_ns.splats.rig_maps import Cameras as MapCameras
from edit3dgs_ns.splats.rig_maps import Surface, canonical_maps, mesh_surface, region_shares
from edit3dgs_ns.splats.spherical_harmonics import plain_colors
from edit3dgs_ns.splats.views import viewmats_from_c2w
from edit3dgs_ns.splats.world_splats import WorldSplats
from edit3dgs_ns.training.model import RiggedSplatfactoModel

CLAY = (0.72, 0.74, 0.78)
"""Colour of the mesh."""
NO_REGION = (0.82, 0.82, 0.82)
_AMBIENT = 0.35


@dataclass(frozen=True)
class Palette:
    """A colour for every face of the rig, by its region; where regions overlap, the smaller one shows."""

    colors: dict[str, tuple[float, float, float]]
    """Of the regions that show somewhere, smallest region last."""
    of_faces: Float[Tensor, "faces 3"]

    @classmethod
    def of(cls, regions: Mapping[str, np.ndarray], num_faces: int) -> Palette:
        """Hues spread evenly over the regions."""
        names = sorted(regions, key=lambda name: (-len(regions[name]), name))
        owner = np.full(num_faces, -1)
        for number, name in enumerate(names):
            owner[regions[name]] = number
        shown = [number for number in range(len(names)) if (owner == number).any()]
        of_faces = torch.tensor(NO_REGION).repeat(num_faces, 1)
        colors = {}
        for place, number in enumerate(shown):
            # Neighbours in size get hues far apart (golden ratio) and two brightnesses in turn.
            color = colorsys.hsv_to_rgb(place * 0.618034 % 1.0, 0.65, (0.95, 0.75)[place % 2])
            colors[names[number]] = color
            of_faces[torch.from_numpy(owner == number)] = torch.tensor(color)
        return cls(colors, of_faces)


@torch.no_grad()
def draw_mesh(
    model: RiggedSplatfactoModel,
    camera: Cameras,
    pose: FlamePose,
    face_colors: Float[Tensor, "faces 3"],
    scene: WorldSplats | None = None,
) -> dict[str, Tensor]:
    """The posed mesh, lit from the camera, on white.

    Args:
        model: the avatar.
        camera: one, shape (1,).
        pose: one frame.
        face_colors: in [0, 1].
        scene: drawn around it.

    Returns:
        rgb, depth and accumulation as `RiggedSplatfactoModel.get_outputs` gives them.
    """
    vertices = model.head.vertices_of(pose)
    surface = _mesh(model, vertices, face_colors.to(vertices))
    # The second axis of a triangle's frame is its normal, the third column of c2w looks back at the camera.
    normals = triangle_frames(vertices, model.head.faces).rotation[..., 1]
    towards = camera.camera_to_worlds[0, :, 2].to(normals)
    light = _AMBIENT + (1 - _AMBIENT) * (normals @ towards).abs()
    per_tile = len(surface.opacities) // len(normals)
    shaded = surface.regions * light.repeat_interleave(per_tile)[:, None]
    splats = WorldSplats(surface.gaussians, surface.opacities, plain_colors(shaded))
    return _outputs(model, camera, splats.joined(scene))


@torch.no_grad()
def draw_colored(
    model: RiggedSplatfactoModel,
    camera: Cameras,
    pose: FlamePose,
    face_colors: Float[Tensor, "faces 3"],
    scene: WorldSplats | None = None,
) -> dict[str, Tensor]:
    """The avatar's own Gaussians, each in the colour of its face; see `draw_mesh`."""
    gaussians, _ = model.shown_in(pose)
    opacities = torch.sigmoid(model.gauss_params["opacities"][:, 0])
    colors = plain_colors(face_colors.to(opacities)[model.binding])
    return _outputs(model, camera, WorldSplats(gaussians, opacities, colors).joined(scene))


@torch.no_grad()
def region_share(
    model: RiggedSplatfactoModel, camera: Cameras, pose: FlamePose, faces: Bool[np.ndarray, " faces"]
) -> Float[np.ndarray, "height width"]:
    """How much of every pixel shows these faces of the rig, in [0, 1], in any pose and from any camera."""
    vertices = model.head.vertices_of(pose)
    region = torch.from_numpy(faces).to(vertices)[:, None]
    shares = region_shares(
        _surface(model, pose, region), _mesh(model, vertices, region), _map_cameras(model, camera)
    )
    return shares[0, ..., 0].cpu().numpy()


@torch.no_grad()
def canonical_map(
    model: RiggedSplatfactoModel, camera: Cameras, pose: FlamePose
) -> Float[np.ndarray, "height width 3"]:
    """Rest position of what every pixel shows, metres, in any pose and from any camera; NaN where nothing certain."""
    nothing = torch.zeros(len(model.head.faces), 0, device=model.device)
    return canonical_maps(_surface(model, pose, nothing), _map_cameras(model, camera))[0].cpu().numpy()


def _surface(model: RiggedSplatfactoModel, pose: FlamePose, face_regions: Tensor) -> Surface:
    params = model.gauss_params
    at_rest = local_to_world(
        params["means"], params["quats"], params["scales"], model.binding, model.head.rest_frames()
    )
    gaussians, _ = model.shown_in(pose)
    opacities = torch.sigmoid(params["opacities"][:, 0])
    return Surface(gaussians, opacities, at_rest.means, face_regions[model.binding])


def _map_cameras(model: RiggedSplatfactoModel, camera: Cameras) -> MapCameras:
    return MapCameras(*_seen_from(model, camera), model.config.rasterize_mode)


def _mesh(
    model: RiggedSplatfactoModel,
    vertices: Float[Tensor, "vertices 3"],
    face_channels: Float[Tensor, "faces channels"],
) -> Surface:
    return mesh_surface(vertices, model.head.canonical_vertices(), model.head.faces, face_channels)


def _seen_from(model: RiggedSplatfactoModel, camera: Cameras) -> tuple[Tensor, Tensor, int, int]:
    viewmats = viewmats_from_c2w(camera.camera_to_worlds.to(model.device))
    Ks = camera.get_intrinsics_matrices().to(viewmats)
    return viewmats, Ks, int(camera.width[0, 0]), int(camera.height[0, 0])


def _outputs(
    model: RiggedSplatfactoModel,
    camera: Cameras,
    splats: WorldSplats,
) -> dict[str, Tensor]:
    image, alpha, _ = rasterize(
        *splats.tensors,
        *_seen_from(model, camera),
        sh_degree=splats.sh_degree,
        backgrounds=torch.ones(1, 3, device=model.device),
        render_mode="RGB+ED",
        rasterize_mode=model.config.rasterize_mode,
    )
    depth = torch.where(alpha > 0, image[..., 3:], image[..., 3:].max())
    return {"rgb": image[0, ..., :3].clamp(0, 1), "depth": depth[0], "accumulation": alpha[0]}
