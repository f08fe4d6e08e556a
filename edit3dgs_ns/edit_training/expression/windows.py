"""Windows on brows, eyes and mouth in edited views, small and all of one size, and what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from edit3dgs_ns.splats.views import viewmats_from_c2w

if TYPE_CHECKING:
    from edit3dgs_ns.training.datamanager import AvatarDatamanager
    from edit3dgs_ns.training.model import RiggedSplatfactoModel

SIDE = 96
"""Pixels of a window's side, at most."""
_Box = tuple[float, float, float, float]
"""Left, top, right, bottom, pixels."""
_MARGIN = 0.35
"""Of the box around a region, as a share of its height, on every side."""
_UPPER, _LOWER = ("brows", "eyelids", "eye_region"), ("lips",)
"""Regions of the open head and of FLAME's masks."""


@dataclass(frozen=True)
class Window:
    """A square piece of one training view.

    Attributes:
        view: the number of the training view.
        timestep: the timestep that it shows.
        camera: Nerfstudio's, shape (1,), that renders the window.
        weight: of each pixel.
    """

    view: int
    timestep: int
    camera: Any
    weight: Float[Tensor, "side side"]
    _corner: tuple[int, int]
    _size: int

    def piece(self, image: UInt8[Tensor, "height width 3"]) -> Float[Tensor, "side side"]:
        """Brightness in the window, in [0, 1]; white outside of the image."""
        (top, left), size = self._corner, self._size
        height, width = image.shape[:2]
        before, after = max(-top, 0), max(top + size - height, 0)
        ahead, behind = max(-left, 0), max(left + size - width, 0)
        grey = F.pad(image.float().mean(dim=-1)[None, None] / 255, (ahead, behind, before, after), value=1.0)
        top, left = max(top, 0), max(left, 0)
        cut = grey[..., top : top + size, left : left + size]
        return F.interpolate(cut, size=self.weight.shape, mode="area")[0, 0]


def regions_of(regions: Mapping[str, np.ndarray], names: Sequence[str]) -> Int[np.ndarray, " vertices"]:
    """Vertices of the named regions, as far as the head has them."""
    found = [regions[name] for name in names if name in regions]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)


@torch.no_grad()
def windows_of(
    model: RiggedSplatfactoModel,
    datamanager: AvatarDatamanager,
    vertex_regions: Mapping[str, np.ndarray],
    views: Mapping[int, Sequence[int]],
    per_timestep: int,
) -> list[Window]:
    """The windows of those views that see the face best.

    Args:
        model: the unedited avatar.
        datamanager: whose training views they are.
        vertex_regions: of the head; without any, the window is around the whole head.
        views: numbers of training views, by timestep.
        per_timestep: how many of each timestep.
    """
    groups = [regions_of(vertex_regions, names) for names in (_UPPER, _LOWER)]
    groups = [group for group in groups if len(group)] or [np.arange(model.head.flame.num_vertices)]
    chosen: dict[int, list[tuple[float, int, list[_Box]]]] = {}
    for timestep, view in ((t, view) for t, group in views.items() for view in group):
        boxes, facing = _boxes(model, datamanager.train_camera([view]), [torch.from_numpy(g) for g in groups])
        chosen.setdefault(timestep, []).append((-facing, view, boxes))
    best = {timestep: sorted(group)[:per_timestep] for timestep, group in sorted(chosen.items())}
    sizes = [_square(boxes)[2] for group in best.values() for _, _, boxes in group]
    side = min(SIDE, *sizes)
    return [
        _window(view, timestep, datamanager.train_camera([view]), boxes, side)
        for timestep, group in best.items()
        for _, view, boxes in group
    ]


def _boxes(model: RiggedSplatfactoModel, camera: Any, groups: list[Tensor]) -> tuple[list[_Box], float]:
    """Boxes (left, top, right, bottom) around regions, pixels; and how far the face is turned to the camera, a cosine."""
    time = 0.0 if camera.times is None else float(camera.times[0, 0])
    vertices = model.head.vertices_at(time)
    viewmat = viewmats_from_c2w(camera.camera_to_worlds.to(vertices))[0]
    K = camera.get_intrinsics_matrices()[0].to(vertices)
    at = (vertices @ viewmat[:3, :3].T + viewmat[:3, 3]) @ K.T
    pixels = at[:, :2] / at[:, 2:].clamp_min(1e-6)
    boxes = []
    for group in groups:
        low, high = pixels[group].amin(dim=0), pixels[group].amax(dim=0)
        margin = _MARGIN * float(high[1] - low[1])
        boxes.append((*(low - margin).tolist(), *(high + margin).tolist()))
    frames = model.head.frames_at(time)
    faces = torch.isin(model.head.faces, torch.cat(groups).to(model.head.faces)).all(dim=1)
    towards = F.normalize(camera.camera_to_worlds[0, :, 3].to(vertices) - frames.centre[faces], dim=-1)
    cosines = (frames.rotation[faces][..., 1] * towards).sum(dim=-1)
    return boxes, float(cosines.mean())


def _square(boxes: list[_Box]) -> tuple[int, int, int]:
    """Left, top and size of the smallest square around boxes, pixels."""
    low = np.min([box[:2] for box in boxes], axis=0)
    high = np.max([box[2:] for box in boxes], axis=0)
    size = max(int(np.ceil((high - low).max())), 8)
    left, top = (int(x) for x in np.floor((low + high - size) / 2))
    return left, top, size


def _window(view: int, timestep: int, camera: Any, boxes: list[_Box], side: int) -> Window:
    left, top, size = _square(boxes)
    scale = side / size
    camera.fx, camera.fy = camera.fx * scale, camera.fy * scale
    camera.cx, camera.cy = (camera.cx - left) * scale, (camera.cy - top) * scale
    camera.width, camera.height = camera.width * 0 + side, camera.height * 0 + side
    weight = torch.zeros(side, side)
    for x0, y0, x1, y1 in boxes:
        rows, columns = (
            slice(max(round((a - start) * scale), 0), round((b - start) * scale))
            for a, b, start in ((y0, y1, top), (x0, x1, left))
        )
        weight[rows, columns] = 1.0
    return Window(view, timestep, camera, weight, (top, left), size)
