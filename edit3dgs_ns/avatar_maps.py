"""What the training views of an avatar show, as the avatar itself knows it: places on the canonical head, parts of the rig."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from edit3dgs_ns.datamanager import AvatarDatamanager
from edit3dgs_ns.model import RiggedSplatfactoModel
from edit3dgs_ns.splats.binding import local_to_world
from edit3dgs_ns.splats.views import viewmats_from_c2w

if TYPE_CHECKING:
    from edit3dgs_ns.splats.rig_maps import Cameras, Surface


class AvatarMaps:
    """Draws maps of training views.

    Args:
        datamanager: gives the views' cameras.
        model: the avatar, as it is at the time of a call.
    """

    def __init__(self, datamanager: AvatarDatamanager, model: RiggedSplatfactoModel):
        self._datamanager, self._model = datamanager, model

    @torch.no_grad()
    def canonical(self, view: int) -> Float[np.ndarray, "height width 3"]:
        """Rest position of what every pixel of a training view shows, metres; NaN where nothing certain."""
        from edit3dgs_ns.splats.rig_maps import canonical_maps

        nothing = torch.zeros(len(self._model.head.faces), 0, device=self._model.device)
        camera = self._datamanager.train_camera([view])
        avatar = self._avatar(_time(camera), nothing)
        return canonical_maps(avatar, self._cameras(camera))[0].cpu().numpy()

    @torch.no_grad()
    def share(self, view: int, faces: Bool[np.ndarray, " faces"]) -> Float[np.ndarray, "height width"]:
        """How much of every pixel of a training view shows these faces of the rig, in [0, 1]."""
        from edit3dgs_ns.splats.rig_maps import mesh_surface, region_shares

        head = self._model.head
        camera = self._datamanager.train_camera([view])
        time = _time(camera)
        region = torch.from_numpy(faces).to(self._model.device)[:, None].float()
        mesh = mesh_surface(head.vertices_at(time), head.canonical_vertices(), head.faces, region)
        shares = region_shares(self._avatar(time, region), mesh, self._cameras(camera))
        return shares[0, ..., 0].cpu().numpy()

    def _avatar(self, time: float, face_regions: Float[Tensor, "faces regions"]) -> Surface:
        from edit3dgs_ns.splats.rig_maps import Surface

        model, params = self._model, self._model.gauss_params
        rest = model.head.rest_frames()
        at_rest = local_to_world(params["means"], params["quats"], params["scales"], model.binding, rest)
        return Surface(
            model.gaussians_at(time),
            torch.sigmoid(params["opacities"][:, 0]),
            at_rest.means,
            face_regions[model.binding],
        )

    def _cameras(self, camera: Any) -> Cameras:
        from edit3dgs_ns.splats.rig_maps import Cameras

        return Cameras(
            viewmats_from_c2w(camera.camera_to_worlds),
            camera.get_intrinsics_matrices().to(camera.camera_to_worlds),  # Nerfstudio makes them on the CPU
            int(camera.width[0, 0]),
            int(camera.height[0, 0]),
            self._model.config.rasterize_mode,
        )


def _time(camera: Any) -> float:
    """Place on the motion; captures without time show its start."""
    return 0.0 if camera.times is None else float(camera.times[0, 0])


def rig_regions(datamanager: AvatarDatamanager) -> dict[str, np.ndarray]:
    """Faces of every named region of the head that the data was tracked with."""
    from edit3dgs_ns.model_setup import head_assets

    return dict(head_assets(datamanager.train_dataset.metadata).face_regions)
