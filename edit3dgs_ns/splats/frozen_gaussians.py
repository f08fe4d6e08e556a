"""Freezes some Gaussians, bit for bit, while the others are trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor
from torch.utils.hooks import RemovableHandle


def freeze_gaussians(
    parameters: Mapping[str, torch.nn.Parameter],
    optimizers: Mapping[str, torch.optim.Optimizer],
    frozen: Bool[Tensor, " gaussians"],
) -> list[RemovableHandle]:
    """Freezes rows of all parameters: training leaves them exactly as they are.

    Their gradients are set to 0, and so are both of Adam's moments, which would move a row for many steps after its last gradient.

    Args:
        parameters: one row per Gaussian. They have to stay the same objects of the same length: no densification.
        optimizers: of the same names.
        frozen: the rows.

    Returns:
        Handles whose `remove` unfreezes the rows.
    """
    rows = frozen.nonzero()[:, 0]
    for name, parameter in parameters.items():
        for value in optimizers[name].state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value[rows] = 0
    return [parameter.register_hook(_without(rows)) for parameter in parameters.values()]


def _without(rows: Int[Tensor, " frozen"]):  # type: ignore[no-untyped-def]
    def hook(gradient: Tensor) -> Tensor:
        return gradient.index_fill(0, rows, 0)

    return hook


def faces_near(
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    region: Bool[np.ndarray, " faces"],
    border: float,
) -> Bool[np.ndarray, " faces"]:
    """Mask of the faces of a region and of those around it.

    Args:
        vertices: of the head at rest, metres.
        faces: corners.
        region: its faces.
        border: a face is around it if its middle is at most this far from the middle of one of its faces, metres.
    """
    if not region.any():
        return region.copy()
    middles = vertices[faces].mean(axis=1)
    distance, _ = cKDTree(middles[region]).query(middles, distance_upper_bound=max(border, 1e-9))
    return region | (distance <= border)
