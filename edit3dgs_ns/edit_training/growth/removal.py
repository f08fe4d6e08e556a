"""Which Gaussians the edited views agree to be gone: they lie where views show the background now and something before."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from edit3dgs_ns.edit_training.growth.seen import SeenView

LEAST_VIEWS = 3
"""Views that must agree."""


@torch.no_grad()
def gone(
    views: list[SeenView], posed: list[Float[Tensor, "gaussians 3"]], least: int = LEAST_VIEWS
) -> Bool[Tensor, " gaussians"]:
    """Gaussians that enough views show to be background.

    Whatever else is on the ray of a pixel that shows the background: nothing is there, so that occlusion does not matter.

    Args:
        views: the edited views.
        posed: means of all Gaussians in the pose of each view, metres.
        least: views that must agree.
    """
    empty = torch.zeros(len(posed[0]), device=posed[0].device)
    for view, points in zip(views, posed, strict=True):
        pixel, _, inside = view.project(points)
        empty += inside & view.emptied.reshape(-1)[pixel]
    return empty >= least
