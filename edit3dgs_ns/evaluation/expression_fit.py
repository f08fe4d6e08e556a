"""Estimates the expression that an image shows, without a landmark detector: the unedited avatar is fitted to it.

The edit has changed colours, so colours cannot be compared. The fit compares structure: local normalised correlation, which
does not change when a patch becomes brighter, darker, or turns into its negative. It starts away from the answer, at the
mean pose of the sequence, and works for any head model that has an avatar. Its own error is measured beside it: the
same fit to the render of the unedited avatar, whose expression is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.flame.model import FlamePose

Draw = Callable[[FlamePose], Float[Tensor, "height width 3"]]
"""Renders the unedited avatar in one pose, differentiably."""

_FLAT = 1e-4
"""Variance (of images in [0, 1]) below which a patch has no structure and does not count."""
_EMPTY = 1e-5
"""Variance below which nothing is in a patch: that of steps of 1/100."""


@dataclass(frozen=True)
class FitOptions:
    """Options of the fit."""

    steps: int = 60
    """Steps of Adam from each start."""
    rate: float = 0.04
    """Radians, and units of an expression, per step; falls to a tenth."""
    window: int = 9
    """Side of the patches that are correlated, pixels."""
    prior: float = 2e-4
    """Weight of the squared distance from the start: directions that the image does not constrain stay."""


def fit_expression(
    draw: Draw,
    image: Float[Tensor, "height width 3"],
    known: FlamePose,
    starts: list[FlamePose],
    where: Float[Tensor, "height width"],
    options: FitOptions | None = None,
) -> FlamePose:
    """The expression, jaw and gaze with which the render of the avatar matches an image best.

    Args:
        draw: renders the unedited avatar.
        image: the edited render, in [0, 1].
        known: head rotation and translation of the image (one frame); its expression is not used.
        starts: initial poses; the best result of all is returned.
        where: weight of each pixel, not negative: the face.
        options: steps and rates.

    Returns:
        One frame: the fitted pose, with the head rotation of `known`.
    """
    options = options or FitOptions()
    ends = [_descend(draw, image, known, start, where, options) for start in starts]
    return min(ends, key=lambda end: end[0])[1]


def structure_loss(
    a: Float[Tensor, "height width 3"],
    b: Float[Tensor, "height width 3"],
    where: Float[Tensor, "height width"],
    window: int,
) -> Float[Tensor, ""]:
    """1 - mean squared local correlation of brightness, in [0, 1].

    0 where all patches are flat in both images or affine functions of the other's; 1 where they are unrelated or one alone is flat.

    Squared local normalised cross-correlation, the similarity of ANTs' registration (Avants et al., "Symmetric diffeomorphic
    image registration with cross-correlation", Medical Image Analysis 2008, equation 3).
    """

    def smooth(x: Tensor) -> Tensor:
        return F.avg_pool2d(x[None, None], window, stride=1, padding=window // 2, count_include_pad=False)[
            0, 0
        ]

    x, y = a.mean(dim=-1), b.mean(dim=-1)
    mean_x, mean_y = smooth(x), smooth(y)
    covariance = smooth(x * y) - mean_x * mean_y
    variances = (smooth(x * x) - mean_x**2).clamp(min=0), (smooth(y * y) - mean_y**2).clamp(min=0)
    # The same term above and below: added to a variance alone, it would reward contrast.
    product = variances[0] * variances[1] + _FLAT**2
    # Where one patch alone has nothing in it, the product vanishes as if both had: there the other's variance counts.
    least, most = torch.minimum(*variances), torch.maximum(*variances)
    alone = _FLAT * most * (1 - least / _EMPTY).clamp(min=0)
    correlation = (covariance**2 + _FLAT**2) / (product + alone)
    return 1 - (correlation * where).sum() / where.sum().clamp(min=1e-6)


def _descend(
    draw: Draw,
    image: Float[Tensor, "height width 3"],
    known: FlamePose,
    start: FlamePose,
    where: Float[Tensor, "height width"],
    options: FitOptions,
) -> tuple[float, FlamePose]:
    begin = {name: getattr(start, name).detach().clone() for name in ("expr", "jaw_pose", "eyes_pose")}
    free = {name: value.clone().requires_grad_() for name, value in begin.items()}
    optimizer = torch.optim.Adam(list(free.values()), lr=options.rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / max(options.steps, 1)))

    def pose() -> FlamePose:
        return FlamePose(
            free["expr"],
            known.rotation,
            known.neck_pose,
            free["jaw_pose"],
            free["eyes_pose"],
            known.translation,
        )

    best: tuple[float, FlamePose] | None = None
    for step in range(options.steps + 1):
        loss = structure_loss(draw(pose()), image, where, options.window)
        reached = float(loss.detach())
        if best is None or reached < best[0]:
            values = {name: value.detach().clone() for name, value in vars(pose()).items()}
            best = reached, FlamePose(**values)
        if step == options.steps:
            break
        away = sum(((free[name] - begin[name]) ** 2).sum() for name in free)
        optimizer.zero_grad()
        (loss + options.prior * away).backward()
        optimizer.step()
        schedule.step()
    assert best is not None
    return best
