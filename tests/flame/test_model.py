"""The FLAME layer against a slow oracle, and its properties."""

import dataclasses

import numpy as np
import pytest
import torch

from edit3dgs_ns.flame import FlameModel, FlamePose
from edit3dgs_ns.flame.rotations import axis_angle_to_matrix

from .helpers import oracle, random_assets


def random_pose(frames, num_expr, seed=1, scale=0.7):
    generator = torch.Generator().manual_seed(seed)
    widths = {
        "expr": num_expr,
        "rotation": 3,
        "neck_pose": 3,
        "jaw_pose": 3,
        "eyes_pose": 6,
        "translation": 3,
    }
    return {
        k: scale * torch.randn(frames, w, generator=generator, dtype=torch.float64) for k, w in widths.items()
    }


@pytest.mark.parametrize("num_vertices", [11, 37, 200])
@pytest.mark.parametrize("with_offset", [False, True])
def test_matches_the_slow_oracle(num_vertices, with_offset):
    assets = random_assets(num_vertices)
    model = FlameModel.from_assets(assets).double()
    shape = torch.tensor([0.5, -1.0, 0.3, 2.0], dtype=torch.float64)
    offset = 0.05 * torch.randn(num_vertices, 3, dtype=torch.float64) if with_offset else None
    pose = random_pose(3, 3)
    got = model(shape, offset, **pose)
    assert got.shape == (3, num_vertices, 3)
    for t in range(3):
        row = {k: v[t].numpy() for k, v in pose.items()}
        want = oracle(
            assets, shape.numpy(), None if offset is None else offset.numpy(), row["expr"], row["rotation"],
            row["neck_pose"], row["jaw_pose"], row["eyes_pose"], row["translation"],
        )  # fmt: skip
        np.testing.assert_allclose(got[t].numpy(), want, atol=1e-12)


def test_zero_pose_gives_the_template():
    assets = random_assets()
    model = FlameModel.from_assets(assets)
    pose = {k: torch.zeros_like(v).float() for k, v in random_pose(2, 3).items()}
    got = model(torch.zeros(4), None, **pose)
    np.testing.assert_allclose(got[1].numpy(), assets.v_template, atol=1e-6)


def test_global_rotation_and_translation_are_rigid_about_the_root():
    assets = random_assets()
    model = FlameModel.from_assets(assets).double()
    pose = {k: torch.zeros_like(v) for k, v in random_pose(1, 3).items()}
    pose["rotation"] = torch.tensor([[0.3, -0.8, 0.4]], dtype=torch.float64)
    pose["translation"] = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    got = model(torch.zeros(4).double(), None, **pose)[0]
    R = axis_angle_to_matrix(pose["rotation"])[0]
    root = (model.J_regressor @ model.v_template)[0]
    want = (model.v_template - root) @ R.T + root + pose["translation"]
    torch.testing.assert_close(got, want)


def test_fewer_coefficients_count_as_zeros_and_more_are_refused():
    model = FlameModel.from_assets(random_assets())
    pose = {k: v.float() for k, v in random_pose(2, 3).items()}
    short = dict(pose, expr=pose["expr"][:, :1])
    padded = dict(pose, expr=pose["expr"] * torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(
        model(torch.tensor([0.7]), None, **short), model(torch.tensor([0.7, 0, 0, 0]), None, **padded)
    )
    with pytest.raises(ValueError, match=r"5 shape coefficients .* has 4"):
        model.shaped(torch.zeros(5))
    with pytest.raises(ValueError, match=r"4 expression coefficients .* has 3"):
        model(torch.zeros(1), None, **dict(pose, expr=torch.zeros(2, 4)))
    with pytest.raises(ValueError, match="static_offset"):
        model.shaped(torch.zeros(4), torch.zeros(36, 3))


def test_gradients_agree_with_finite_differences():
    model = FlameModel.from_assets(random_assets(9, 2, 2)).double()
    pose = random_pose(2, 2)
    names = list(pose)
    inputs = [pose[n].clone().requires_grad_() for n in names]
    shape = torch.tensor([0.2, -0.4], dtype=torch.float64, requires_grad=True)

    def run(shape, *values):
        return model.shaped(shape).posed(FlamePose(**dict(zip(names, values, strict=True))))

    assert torch.autograd.gradcheck(run, (shape, *inputs))


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-5, 1e-3, 1.0, 3.1, np.pi, 7.0])
@pytest.mark.parametrize("batch", [(), (2,), (3, 1, 2)])
def test_rotation_matrices(size, batch):
    axis = torch.randn(*batch, 3, dtype=torch.float64)
    axis_angle = (size * axis / axis.norm(dim=-1, keepdim=True)).requires_grad_()
    R = axis_angle_to_matrix(axis_angle)
    eye = torch.eye(3, dtype=torch.float64).expand_as(R)
    torch.testing.assert_close(R @ R.transpose(-1, -2), eye, atol=1e-9, rtol=0)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(batch, dtype=torch.float64), atol=1e-9, rtol=0)
    skew = torch.zeros(*batch, 3, 3, dtype=torch.float64)
    x, y, z = axis_angle.detach().unbind(-1)
    for (r, c), v in {(0, 1): -z, (0, 2): y, (1, 0): z, (1, 2): -x, (2, 0): -y, (2, 1): x}.items():
        skew[..., r, c] = v
    torch.testing.assert_close(R, torch.linalg.matrix_exp(skew), atol=1e-9, rtol=0)
    R.sum().backward()
    assert torch.isfinite(axis_angle.grad).all()


def test_buffers_stay_out_of_the_checkpoint():
    assert FlameModel.from_assets(random_assets()).state_dict() == {}


def test_other_joint_counts_are_refused():
    assets = random_assets()
    with pytest.raises(ValueError, match="4 joints, expected FLAME's 5"):
        FlameModel.from_assets(dataclasses.replace(assets, weights=assets.weights[:, :4]))
