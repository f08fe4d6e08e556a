"""Which Gaussians the edited views agree to be gone: they lie where views show the background now and something before."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from edit3dgs_ns.edit_training.growth.seen import SeenView

LEAST_VIEWS, LEAST_SHARE = 3, 0.05
"""Views that must agree, and their share of those in whose image a Gaussian lies: among many views, three whose outline wobbles
must not eat what all others show."""


@torch.no_grad()
def gone(
    views: list[SeenView], posed: list[Float[Tensor, "gaussians 3"]], least: int = LEAST_VIEWS
) -> Bool[Tensor, " gaussians"]:
    """Gaussians that enough views show to be background.

    Whatever else is on the ray of a pixel that shows the background: nothing is there, so that occlusion does not matter.

    Args:
        views: the edited views.
        posed: means of all Gaussians in the pose of each view, metres.
        least: views that must agree, of however few.
    """
    empty = torch.zeros(len(posed[0]), device=posed[0].device)
    seen = torch.zeros_like(empty)
    for view, points in zip(views, posed, strict=True):
        pixel, _, inside = view.project(points)
        empty += inside & view.emptied.reshape(-1)[pixel]
        seen += inside
    return empty >= (LEAST_SHARE * seen).clamp(min=least)
