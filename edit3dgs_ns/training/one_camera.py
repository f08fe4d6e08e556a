"""What an avatar's training does differently where all images come from one camera, as those of a video do.

- No view dependence: the camera sees every surface from about one direction, so that spherical harmonics above degree 0 learn
  anything at all in the others, and break when the camera turns.
- No white Gaussians over the white background: they would be seen in front of the head as soon as the camera turns.
- What no image shows (back of the head, nape, a side that is never turned to the camera) is laid onto the head model and coloured
  like the mirrored side: see `splats.unseen`. It happens with every checkpoint, so that an edit reaches these Gaussians, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.splats.views import viewmats_from_c2w
from edit3dgs_ns.splats.world_splats import WorldSplats

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

    from edit3dgs_ns.flame.assets import FlameAssets
    from edit3dgs_ns.splats.rest_surface import RestSurface
    from edit3dgs_ns.training.datamanager import AvatarDatamanager
    from edit3dgs_ns.training.model import RiggedSplatfactoModel

MOST_VIEWS = 32
"""Training images that are looked at for what is seen, spread evenly over the capture."""
RINGS = 2
"""Rings of faces around those that a camera shows that count as shown."""
CHECKS = 1
"""Times that is looked again at what was laid onto the head model: some of it may be seen there."""
TURNED_AWAY = -0.3
"""Cosine between a face's normal and the direction to the camera, below which what the camera shows of it shines through others."""
HAIR = "scalp"
"""Part of the head model that hair covers."""
NOTE = (
    "The capture has one camera: colours do not depend on the direction of view, and what no image shows is coloured like the "
    "mirrored side (--pipeline.model.view-dependence on, --pipeline.model.fill-unseen off change that)."
)


def fill_unseen_of(
    model: RiggedSplatfactoModel,
    datamanager: AvatarDatamanager,
    held_faces: Bool[np.ndarray, " faces"] | None = None,
) -> int:
    """Completes an avatar where no training camera shows it; returns the number of Gaussians that were changed.

    Args:
        model: whose Gaussians are changed in place.
        datamanager: of the training images.
        held_faces: faces whose Gaussians stay as they are.
    """
    from edit3dgs_ns.splats.unseen import LEAST_SHARE, fill_unseen, largest_share, take_back
    from edit3dgs_ns.training.model_setup import head_assets

    if not model.fills_unseen:
        return 0
    held = None if held_faces is None else torch.from_numpy(held_faces).to(model.device)[model.binding]
    share = largest_share(_shares(model, datamanager))
    # What the mesh shows is left to training, however faint its Gaussians are there.
    in_view = torch.from_numpy(_faces_in_view(model, datamanager)).to(model.device)[model.binding]
    share = torch.where(in_view, share.clamp_min(LEAST_SHARE), share)
    params = {name: value.data for name, value in model.gauss_params.items()}
    before = {name: value.clone() for name, value in params.items()}
    surface = _rest_surface(model, head_assets(datamanager.train_dataset.metadata))
    changed = fill_unseen(params, model.binding, share, surface, held)
    for _ in range(CHECKS):
        # What would be seen now was hidden by its being faint: it is as training wanted it.
        changed = take_back(params, before, changed, largest_share(_shares(model, datamanager)))
    model.forget_shown()
    return int(changed.sum())


def _rest_surface(model: RiggedSplatfactoModel, assets: FlameAssets) -> RestSurface:
    from edit3dgs_ns.splats.rest_surface import RestSurface

    hair = np.zeros(len(assets.faces), bool)
    hair[assets.face_regions.get(HAIR, np.zeros(0, np.int64))] = True
    vertices = model.head.canonical_vertices().detach().cpu().double().numpy()
    return RestSurface(vertices, assets.faces, hair)


def _viewed(datamanager: AvatarDatamanager) -> Iterator[tuple[Cameras, float]]:
    """Cameras of training images, spread evenly over the capture, and their normalised times."""
    total = len(datamanager.train_dataset)
    for index in sorted({int(i) for i in np.linspace(0, total - 1, min(MOST_VIEWS, total)).round()}):
        camera = datamanager.train_camera([index])
        yield camera, 0.0 if camera.times is None else float(camera.times.flatten()[0])


@torch.no_grad()
def _faces_in_view(
    model: RiggedSplatfactoModel, datamanager: AvatarDatamanager
) -> Bool[np.ndarray, " faces"]:
    """Faces of the mesh that a training camera shows, and those around them, which may be smaller than a pixel."""
    from edit3dgs_ns.capture.rays import build_intersector, world_directions

    faces = model.head.faces.cpu().numpy()
    shown = np.zeros(len(faces), bool)
    for camera, time in _viewed(datamanager):
        c2w = np.eye(4)
        c2w[:3] = camera.camera_to_worlds[0].cpu().numpy()
        K = camera.get_intrinsics_matrices()[0].cpu().numpy()
        size = Camera(c2w, K, int(camera.width[0]), int(camera.height[0]))
        row, column = np.mgrid[: size.height, : size.width] + 0.5
        x, y = (column - K[0, 2]) / K[0, 0], (row - K[1, 2]) / K[1, 1]
        rays = world_directions(size, x.ravel(), y.ravel())
        origins = np.broadcast_to(c2w[:3, 3].astype(np.float32), rays.shape).copy()
        mesh = build_intersector(model.head.vertices_at(time).cpu().numpy(), faces)
        hit = mesh.run(origins, rays, output=1)["primID"]
        shown[hit[hit >= 0]] = True
    for _ in range(RINGS):
        near = np.zeros(model.head.flame.num_vertices, bool)
        near[faces[shown]] = True
        shown = near[faces].any(axis=1)
    return shown


def _shares(
    model: RiggedSplatfactoModel, datamanager: AvatarDatamanager
) -> Iterator[Float[Tensor, " gaussians"]]:
    """How much of each Gaussian every view shows."""
    from edit3dgs_ns.splats.unseen import visible_share

    for camera, time in _viewed(datamanager):
        with torch.no_grad():
            gaussians, colors = model.shown_at(time)
            opacities = torch.sigmoid(model.gauss_params["opacities"][:, 0])
            viewmat = viewmats_from_c2w(camera.camera_to_worlds.to(model.device))[0]
            towards = camera.camera_to_worlds[0, :3, 3].to(model.device) - gaussians.means
            normals = model.head.frames_at(time).rotation[..., 1][model.binding]
            turned = torch.nn.functional.cosine_similarity(towards, normals, dim=1)
        share = visible_share(
            WorldSplats(gaussians, opacities, colors),
            viewmat,
            camera.get_intrinsics_matrices().to(model.device)[0],
            int(camera.width[0]),
            int(camera.height[0]),
            model.config.rasterize_mode,
        )
        yield torch.where(turned > TURNED_AWAY, share, 0.0)
