"""The open head, and what a ray tracer says its pictures must show.

The truth of tests of everything that the rig knows: which point of the head a pixel shows, where that point is in another
picture at another moment, and whether it is seen there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import trimesh

from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.splats.rig_maps import Surface, mesh_surface

_ASSETS = load_assets(OPEN_HEAD_PATH)
_MODEL = FlameModel.from_assets(_ASSETS)


@dataclass
class TrueHead:
    """The head in one pose."""

    jaw: float = 0.0
    """Opening of the jaw, radians."""
    turn: float = 0.0
    """Turn to its left, radians."""

    @property
    def assets(self):
        """Faces and regions."""
        return _ASSETS

    @cached_property
    def vertices(self) -> torch.Tensor:
        """(V, 3) metres."""
        pose = {"rotation": (0, self.turn, 0), "neck_pose": (0, 0, 0), "jaw_pose": (self.jaw, 0, 0)}
        tensors = {name: torch.tensor([value], dtype=torch.float32) for name, value in pose.items()}
        expr, nothing = torch.zeros(1, _MODEL.num_expr), torch.zeros(1, 3)
        return _MODEL(
            torch.zeros(1), None, expr=expr, eyes_pose=torch.zeros(1, 6), translation=nothing, **tensors
        )[0]

    def surface(self, *regions: str) -> Surface:
        """The mesh as the rig's maps draw it, with named regions."""
        chosen = torch.zeros(len(_ASSETS.faces), len(regions))
        for column, name in enumerate(regions):
            chosen[_ASSETS.face_regions[name], column] = 1
        return mesh_surface(self.vertices, TrueHead().vertices, torch.from_numpy(_ASSETS.faces), chosen)

    @cached_property
    def mesh(self) -> trimesh.Trimesh:
        """For rays."""
        return trimesh.Trimesh(self.vertices.numpy(), _ASSETS.faces, process=False)

    def hit(self, c2w: np.ndarray, K: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What rays through pixels (n, 2) meet: the face (-1: nothing) and the barycentric coordinates on it."""
        local = np.stack(
            [(pixels[:, 0] - K[0, 2]) / K[0, 0], -(pixels[:, 1] - K[1, 2]) / K[1, 1], -np.ones(len(pixels))],
            1,
        )
        directions = local @ c2w[:3, :3].T
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        origins = np.broadcast_to(c2w[:3, 3], directions.shape)
        places, rays, faces = self.mesh.ray.intersects_location(origins, directions, multiple_hits=False)
        face, weights = np.full(len(pixels), -1), np.full((len(pixels), 3), np.nan)
        face[rays] = faces
        weights[rays] = trimesh.triangles.points_to_barycentric(self.mesh.triangles[faces], places)
        return face, weights

    def place(self, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """World positions (n, 3) of points on faces."""
        return (self.mesh.triangles[face] * weights[:, :, None]).sum(axis=1)

    def seen(self, c2w: np.ndarray, points: np.ndarray, within: float) -> np.ndarray:
        """Which points a camera sees: nothing lies more than `within` metres before them."""
        directions = points - c2w[:3, 3]
        distance = np.linalg.norm(directions, axis=1)
        places, rays, _ = self.mesh.ray.intersects_location(
            np.broadcast_to(c2w[:3, 3], directions.shape), directions / distance[:, None], multiple_hits=False
        )
        first = np.full(len(points), np.inf)
        first[rays] = np.linalg.norm(places - c2w[:3, 3], axis=1)
        return first > distance - within


def camera(
    azimuth: float, width: int, height: int, elevation: float = 0.0, extent: float = 0.36
) -> tuple[np.ndarray, np.ndarray]:
    """c2w (4, 4) and K (3, 3) of a camera one metre from the face that shows `extent` metres of it; radians."""
    target = np.array([0.0, -0.02, 0.0])
    back = np.array(
        [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    )
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3] = np.stack([right, np.cross(back, right), back, target + back], axis=1)
    focal = min(width, height) / extent
    return c2w, np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


def project(points: np.ndarray, c2w: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Pixels (n, 2) of world points."""
    local = (points - c2w[:3, 3]) @ c2w[:3, :3] * [1, -1, -1]
    return local[:, :2] / local[:, 2:] * [K[0, 0], K[1, 1]] + [K[0, 2], K[1, 2]]
