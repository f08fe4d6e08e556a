"""The code of a motion: principal components of unit variance over the training timesteps, and bounded."""

from __future__ import annotations

import numpy as np
import torch

from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.splats.motion_code import LIMIT, RADIAN, motion_code, motion_features, principal_code


def features(times: int = 40) -> torch.Tensor:
    """Three independent movements of different strength in ten coordinates."""
    generator = torch.Generator().manual_seed(0)
    movements = torch.randn(times, 3, generator=generator) * torch.tensor([3.0, 1.0, 0.2])
    return movements @ torch.randn(3, 10, generator=generator) + 5


def test_components_against_numpy() -> None:
    data = features()
    rows = torch.arange(30)
    mean, basis = principal_code(data, rows, rank=2)
    code = (data[rows] - mean) @ basis
    covariance = np.cov(data[rows].numpy().T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    torch.testing.assert_close(code.T @ code / 30, torch.eye(2), atol=1e-4, rtol=0)
    for k in (0, 1):
        direction = basis[:, k] / basis[:, k].norm()
        assert abs(float(direction @ torch.from_numpy(vectors[:, -1 - k]).float())) > 0.999
    assert values[-1] > values[-2]


def test_nothing_beyond_what_moves() -> None:
    """Three movements give three numbers; the rest of the code stays 0 whatever happens later."""
    mean, basis = principal_code(features(), torch.arange(40), rank=6)
    assert (basis[:, :3].norm(dim=0) > 0).all() and (basis[:, 3:] == 0).all()
    assert (motion_code(torch.randn(10), mean, basis)[3:] == 0).all()


def test_a_motionless_capture_has_no_code() -> None:
    still = torch.ones(8, 10)
    mean, basis = principal_code(still, torch.arange(8), rank=3)
    assert (motion_code(still[0], mean, basis) == 0).all() and basis.isfinite().all()


def test_codes_are_bounded() -> None:
    mean, basis = principal_code(features(), torch.arange(40), rank=3)
    near, far = motion_code(mean + 0.01 * basis[:, 0], mean, basis), motion_code(mean + 1e6, mean, basis)
    assert (far.abs() <= LIMIT).all() and near.abs().max() < LIMIT


def test_features_know_expression_and_joints_but_not_where_the_head_is() -> None:
    motion = FlameMotion.zeros(2, num_shape=3, num_expr=4)
    motion.expr[0], motion.jaw_pose[0], motion.rotation[1], motion.translation[1] = 1.0, 0.5, 2.0, 3.0
    found = motion_features(motion.pose())
    assert found.shape == (2, 4 + 3 + 3 + 6)
    assert found[0, :4].tolist() == [1.0] * 4 and found[0, 4:7].tolist() == [0.5 * RADIAN] * 3
    assert (found[1] == 0).all()
