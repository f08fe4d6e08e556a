"""Maps of an avatar's training views, rendered from the avatar itself: canonical surface points, parts of the rig."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from edit3dgs_ns.splats.binding import WorldGaussians, local_to_world, triangle_frames
from edit3dgs_ns.splats.views import viewmats_from_c2w
from edit3dgs_ns.training.datamanager import AvatarDatamanager
from edit3dgs_ns.training.model import RiggedSplatfactoModel

if TYPE_CHECKING:
    from edit3dgs_ns.splats.rig_maps import Cameras, Surface


@dataclass(frozen=True)
class _Posed:
    """The avatar posed at one timestep."""

    vertices: Float[Tensor, "vertices 3"]
    gaussians: WorldGaussians
    colors: Float[Tensor, "gaussians bases 3"]


class AvatarMaps:
    """Draws maps of training views.

    Args:
        datamanager: gives the views' cameras.
        model: the avatar, as it is at the time of a call.
    """

    def __init__(self, datamanager: AvatarDatamanager, model: RiggedSplatfactoModel):
        self._datamanager, self._model = datamanager, model
        self._kept: dict[float | None, Any] | None = None

    @contextmanager
    def poses_kept(self) -> Iterator[None]:
        """Context in which the avatar does not change: it is posed once per timestep, for all views of it."""
        outer, self._kept = self._kept, {} if self._kept is None else self._kept
        try:
            yield
        finally:
            self._kept = outer

    @torch.no_grad()
    def render(self, view: int) -> Float[np.ndarray, "height width 3"]:
        """Renders a training view of the current avatar on white."""
        model, camera = self._model, self._datamanager.train_camera([view])
        posed, training = self._posed(_time(camera)), model.training
        model.eval()
        try:
            rgb = model.draw_shown(camera, posed.gaussians, posed.colors)[0]
        finally:
            model.train(training)
        return rgb.float().cpu().numpy()

    @torch.no_grad()
    def canonical(self, view: int) -> Float[np.ndarray, "height width 3"]:
        """Rest position of what every pixel of a training view shows, metres; NaN where nothing certain."""
        return self.canonical_of(self._datamanager.train_camera([view]))

    @torch.no_grad()
    def canonical_of(self, camera: Any) -> Float[np.ndarray, "height width 3"]:
        """The same for any camera (Nerfstudio's, shape (1,)) at its time."""
        from edit3dgs_ns.splats.rig_maps import canonical_maps

        nothing = torch.zeros(len(self._model.head.faces), 0, device=self._model.device)
        camera = camera.to(self._model.device)
        avatar = self._avatar(_time(camera), nothing)
        return canonical_maps(avatar, self._cameras(camera))[0].cpu().numpy()

    @torch.no_grad()
    def share(self, view: int, faces: Bool[np.ndarray, " faces"]) -> Float[np.ndarray, "height width"]:
        """How much of every pixel of a training view shows these faces of the rig, in [0, 1]."""
        return self.share_of(self._datamanager.train_camera([view]), faces)

    @torch.no_grad()
    def share_of(self, camera: Any, faces: Bool[np.ndarray, " faces"]) -> Float[np.ndarray, "height width"]:
        """The same for any camera (Nerfstudio's, shape (1,)) at its time."""
        from edit3dgs_ns.splats.rig_maps import mesh_surface, region_shares

        head = self._model.head
        camera = camera.to(self._model.device)
        time = _time(camera)
        region = torch.from_numpy(faces).to(self._model.device)[:, None].float()
        mesh = mesh_surface(self._posed(time).vertices, self._rest()[0], head.faces, region)
        shares = region_shares(self._avatar(time, region), mesh, self._cameras(camera))
        return shares[0, ..., 0].cpu().numpy()

    def _avatar(self, time: float, face_regions: Float[Tensor, "faces regions"]) -> Surface:
        from edit3dgs_ns.splats.rig_maps import Surface

        return Surface(
            self._posed(time).gaussians,
            torch.sigmoid(self._model.gauss_params["opacities"][:, 0]),
            self._rest()[1].means,
            face_regions[self._model.binding],
        )

    def _posed(self, time: float) -> _Posed:
        """Returns the avatar posed at a normalised time."""
        posed = None if self._kept is None else self._kept.get(time)
        if posed is None:
            head = self._model.head
            pose = head.pose_at(time)
            vertices = head.vertices_of(pose)
            posed = _Posed(vertices, *self._model.shown_in(pose, triangle_frames(vertices, head.faces)))
            if self._kept is not None:
                self._kept[time] = posed
        return posed

    def _rest(self) -> tuple[Float[Tensor, "vertices 3"], WorldGaussians]:
        """The head and the Gaussians at rest."""
        rest = None if self._kept is None else self._kept.get(None)
        if rest is None:
            model, params = self._model, self._model.gauss_params
            vertices = model.head.canonical_vertices()
            frames = triangle_frames(vertices, model.head.faces)
            world = local_to_world(params["means"], params["quats"], params["scales"], model.binding, frames)
            rest = vertices, world
            if self._kept is not None:
                self._kept[None] = rest
        return rest

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
    """Returns the normalised time of a camera; 0 for captures without time."""
    return 0.0 if camera.times is None else float(camera.times[0, 0])


def rig_regions(datamanager: AvatarDatamanager) -> dict[str, np.ndarray]:
    """Faces of every named region of the head that the data was tracked with."""
    from edit3dgs_ns.training.model_setup import head_assets

    return dict(head_assets(datamanager.train_dataset.metadata).face_regions)
