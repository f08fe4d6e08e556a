"""Low-dimensional code of a pose, in which expression-dependent offsets of Gaussians are linear.

The code is made of the principal components of the tracked motion (expression, jaw, neck, eyes) over the training timesteps, each
of unit variance there. Offsets that are linear in it are blend shapes of the avatar itself: wrinkles, the mouth's inside, and other
detail that the head model's own blend shapes lack. Fewer numbers than the head model has keep that from memorising timesteps.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edit3dgs_ns.flame.model import FlamePose

RADIAN = 3.0
"""A radian of a joint counts as much as this many units of an expression coefficient."""
LIMIT = 2.5
"""Limit of the codes (in standard deviations), so that motions far from the training motion do not tear the avatar apart."""


def motion_features(pose: FlamePose) -> Float[Tensor, "times features"]:
    """Expression and joints of every frame as one vector; without the head's rotation and translation in the world."""
    joints = torch.cat([pose.jaw_pose, pose.neck_pose, pose.eyes_pose], dim=-1)
    return torch.cat([pose.expr, RADIAN * joints], dim=-1)


def principal_code(
    features: Float[Tensor, "times features"], timesteps: Int[Tensor, " some"], rank: int
) -> tuple[Float[Tensor, " features"], Float[Tensor, "features rank"]]:
    """Mean and basis: `(features - mean) @ basis` is the code, of unit variance over `timesteps`.

    Directions in which the motion does not vary get a zero column, so that the code is 0 there.
    """
    seen = features[timesteps].double()
    mean = seen.mean(dim=0)
    _, strengths, directions = torch.linalg.svd(seen - mean, full_matrices=False)
    basis = torch.zeros(features.shape[1], rank, dtype=torch.float64, device=features.device)
    count = min(rank, int((strengths > 1e-4 * strengths.max().clamp_min(1e-12)).sum()))
    deviation = strengths[:count] / max(len(seen), 1) ** 0.5
    basis[:, :count] = directions[:count].T / deviation
    return mean.float(), basis.float()


def motion_code(
    features: Float[Tensor, " features"],
    mean: Float[Tensor, " features"],
    basis: Float[Tensor, "features rank"],
) -> Float[Tensor, " rank"]:
    """The code of one timestep, softly limited to [-2.5, 2.5]."""
    return LIMIT * torch.tanh((features - mean) @ basis / LIMIT)
