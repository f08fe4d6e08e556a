"""Conversion of Nerfstudio's cameras (OpenGL axes) to the rasterizer's (OpenCV axes); it happens here alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def viewmats_from_c2w(c2w: Float[Tensor, "views rows 4"]) -> Float[Tensor, "views 4 4"]:
    """camera_from_world with OpenCV axes (x right, y down, looks along +z) from world_from_camera with OpenGL axes.

    Args:
        c2w: world_from_camera, x right, y up, looking along -z; 3 or 4 rows; the rotation is orthonormal.
    """
    world_from_camera = c2w[:, :3, :3] * c2w.new_tensor([1.0, -1.0, -1.0])
    rotation = world_from_camera.transpose(1, 2)
    translation = -rotation @ c2w[:, :3, 3:]
    bottom = c2w.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(c2w), 1, 4)
    return torch.cat([torch.cat([rotation, translation], dim=2), bottom], dim=1)


def camera_extent(c2w: Float[Tensor, "cameras rows 4"]) -> float:
    """Size of a set of cameras in metres: 1.1 times the largest distance from their middle (3D Gaussian Splatting's extent)."""
    centres = c2w[:, :3, 3]
    return 1.1 * float((centres - centres.mean(dim=0)).norm(dim=-1).max())
