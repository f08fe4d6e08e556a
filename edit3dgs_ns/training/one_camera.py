"""What an avatar's training does differently where all images come from one camera, as those of a video do.

- No view dependence: the camera sees every surface from about one direction, so that spherical harmonics above degree 0 learn
  anything at all in the others, and break when the camera turns.
- No white Gaussians over the white background: they would be seen in front of the head as soon as the camera turns.
- What no image shows (back of the head, nape, a side that is never turned to the camera) is laid onto the head model and coloured
  like the mirrored side: see `splats.unseen`. It happens as a checkpoint is saved (training goes on without it), so that an edit
  reaches these Gaussians, too, and only so far as training images look as before. The Gaussians in front settle for this when a
  training ends; for a checkpoint on the way that would take too long, and what would shine through stays as training left it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
MOST_COMPARED = 8
"""At most so many training images, of those, have to look as before."""
MOST_DIFFERENCE = 0.8 / 255
"""What may change in one of them, on average over its pixels."""
MOST_OF_IMAGE = 5e-5
"""What fills more of a training image than this is in sight: 3 pixels at 256 x 256."""
ROUNDS = 3
"""Times that this is done, each time with less on the head model that is in sight, until training images look as before."""
SETTLING_STEPS = 128
"""In which the Gaussians that are seen learn to look as before, in front of those that were laid onto the head model."""
STRIDE = 7
"""Between the views of two of these steps."""
SETTLING_RATES = {"opacities": 0.1, "features_dc": 0.02}
"""Learning rates of these steps, which fall to 0."""
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
    *,
    settle: bool = True,
) -> int:
    """Completes an avatar where no training camera shows it; returns the number of Gaussians that were changed.

    Args:
        model: whose Gaussians are changed in place.
        datamanager: of the training images.
        held_faces: faces whose Gaussians stay as they are.
        settle: fit the Gaussians in front, so that more of what is behind them can be completed; takes longest.
    """
    from edit3dgs_ns.splats.unseen import LEAST_SHARE, WELL_SEEN, fill_unseen, keep_views
    from edit3dgs_ns.training.model_setup import head_assets

    if not model.fills_unseen:
        return 0
    held = None if held_faces is None else torch.from_numpy(held_faces).to(model.device)[model.binding]
    before_weight, share = _seen(model, datamanager)
    well_seen = share >= WELL_SEEN
    # What the mesh shows is left to training, however faint its Gaussians are there.
    in_view = torch.from_numpy(_faces_in_view(model, datamanager)).to(model.device)[model.binding]
    share = torch.where(in_view, share.clamp_min(LEAST_SHARE), share)
    params = {name: value.data for name, value in model.gauss_params.items()}
    before = {name: value.clone() for name, value in params.items()}
    surface = _rest_surface(model, head_assets(datamanager.train_dataset.metadata))
    views = list(_viewed(datamanager))
    images = [_render(model, *view).detach() for view in views]
    changed = fill_unseen(params, model.binding, share, surface, held)

    @torch.no_grad()
    def difference() -> float:
        step = -(-len(views) // MOST_COMPARED)
        now = (_render(model, *view) for view in views[::step])
        return max(float((a - b).abs().mean()) for a, b in zip(now, images[::step], strict=True))

    # Where the front is faint, training has given what is behind it a colour for what shines through.
    filled = {name: value.clone() for name, value in params.items()}
    front = well_seen & ~changed if held is None else well_seen & ~(changed | held)
    left = changed
    for _ in range(ROUNDS if settle else 0):
        _settle(model, views, images, front)
        if difference() <= MOST_DIFFERENCE:
            break
        in_sight = left & (_seen(model, datamanager)[0] > MOST_OF_IMAGE)
        for name, value in params.items():
            value[in_sight] = before[name][in_sight]
        left = left & ~in_sight
    else:
        for name, value in params.items():
            value.copy_(filled[name])
        weight = torch.maximum(before_weight, _seen(model, datamanager)[0])
        left = keep_views(params, before, changed, weight, difference, MOST_DIFFERENCE)
    model.forget_shown()
    return int(left.sum())


def _rest_surface(model: RiggedSplatfactoModel, assets: FlameAssets) -> RestSurface:
    from edit3dgs_ns.splats.rest_surface import RestSurface

    hair = np.zeros(len(assets.faces), bool)
    hair[assets.face_regions.get(HAIR, np.zeros(0, np.int64))] = True
    vertices = model.head.canonical_vertices().detach().cpu().double().numpy()
    return RestSurface(vertices, assets.faces, hair)


def _viewed(datamanager: AvatarDatamanager, most: int = MOST_VIEWS) -> Iterator[tuple[Cameras, float]]:
    """Cameras of training images, spread evenly over the capture, and their normalised times."""
    total = len(datamanager.train_dataset)
    for index in sorted({int(i) for i in np.linspace(0, total - 1, min(most, total)).round()}):
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


def _render(model: RiggedSplatfactoModel, camera: Cameras, time: float) -> Float[Tensor, "height width 3"]:
    """A training view on white."""
    return model.draw_shown(camera.to(model.device), *model.shown_at(time))[0]


def _settle(
    model: RiggedSplatfactoModel,
    views: Sequence[tuple[Cameras, float]],
    images: Sequence[Float[Tensor, "height width 3"]],
    free: Bool[Tensor, " gaussians"],
) -> None:
    """Fits opacities and colours of the free Gaussians, until the views are the images again."""
    trained = {name: model.gauss_params[name] for name in SETTLING_RATES}
    required = {name: parameter.requires_grad for name, parameter in trained.items()}
    copies = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimizer = torch.optim.Adam(
        [{"params": [copy], "lr": SETTLING_RATES[name]} for name, copy in copies.items()]
    )
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, SETTLING_STEPS)
    for step in range(SETTLING_STEPS):
        view = step * STRIDE % len(views)
        for parameter in trained.values():
            parameter.requires_grad_(True)
        with torch.enable_grad():
            loss = (_render(model, *views[view]) - images[view]).abs().mean()
            gradients = torch.autograd.grad(loss, list(trained.values()))
        for name, gradient in zip(trained, gradients, strict=True):
            copies[name].grad = gradient.masked_fill(~free.reshape(-1, *[1] * (gradient.ndim - 1)), 0.0)
        optimizer.step()
        decay.step()
        for name, parameter in trained.items():
            parameter.data.copy_(copies[name])
    for name, parameter in trained.items():
        parameter.requires_grad_(required[name])


@torch.no_grad()
def _seen(
    model: RiggedSplatfactoModel, datamanager: AvatarDatamanager
) -> tuple[Float[Tensor, " gaussians"], Float[Tensor, " gaussians"]]:
    """Of each Gaussian, over all views at most: the part of the image that it fills, and the share of it shown from its front."""
    from edit3dgs_ns.splats.unseen import blending_weights, visible_share

    largest = shown = torch.zeros(model.num_points, device=model.device)
    for camera, time in _viewed(datamanager):
        gaussians, colors = model.shown_at(time)
        opacities = torch.sigmoid(model.gauss_params["opacities"][:, 0])
        towards = camera.camera_to_worlds[0, :3, 3].to(model.device) - gaussians.means
        normals = model.head.frames_at(time).rotation[..., 1][model.binding]
        turned = torch.nn.functional.cosine_similarity(towards, normals, dim=1)
        weights, info = blending_weights(
            WorldSplats(gaussians, opacities, colors),
            viewmats_from_c2w(camera.camera_to_worlds.to(model.device))[0],
            camera.get_intrinsics_matrices().to(model.device)[0],
            int(camera.width[0]),
            int(camera.height[0]),
            model.config.rasterize_mode,
        )
        share = visible_share(weights, info, opacities)
        largest = torch.maximum(largest, weights / (int(camera.width[0]) * int(camera.height[0])))
        shown = torch.maximum(shown, torch.where(turned > TURNED_AWAY, share, 0.0))
    return largest, shown
