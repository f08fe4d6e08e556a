"""Distances between moments are displacements of the surface, whatever the head as a whole does."""

import dataclasses

import numpy as np
import pytest
import torch
import trimesh

from edit3dgs_ns.flame.expression_space import expression_space
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel, ShapedHead
from edit3dgs_ns.flame.motion import FlameMotion


@pytest.fixture(scope="module")
def head() -> ShapedHead:
    model = FlameModel.from_assets(load_assets())
    return model.shaped(torch.zeros(model.num_shape))


def _motion(head: ShapedHead, frames: int = 70) -> FlameMotion:
    """Some expression, jaw and gaze in every frame; more frames than are posed at once."""
    generator = torch.Generator().manual_seed(0)
    motion = FlameMotion.zeros(frames, head.model.num_shape, head.model.num_expr)
    return dataclasses.replace(
        motion,
        expr=torch.rand(motion.expr.shape, generator=generator),
        jaw_pose=torch.rand(frames, 3, generator=generator) * torch.tensor([0.2, 0, 0]),
        eyes_pose=0.2 * torch.rand(frames, 6, generator=generator),
    )


def test_distances_are_root_mean_square_displacements_in_millimetres(head):
    motion = _motion(head)
    points = expression_space(head, motion).double()
    pose = motion.pose(torch.tensor([3, 68]))  # nothing turns or shifts these heads
    a, b = head.posed(pose).double().numpy()
    mesh = trimesh.Trimesh(head.v_shaped.numpy(), head.model.faces.numpy(), process=False)
    # Trimesh weighs the corners of faces by their area; written out, no shared code.
    weights = np.zeros(len(a))
    for corner in mesh.faces.T:
        np.add.at(weights, corner, mesh.area_faces / 3)
    expected = 1000 * np.sqrt((weights * ((a - b) ** 2).sum(axis=1)).sum() / weights.sum())
    assert float((points[3] - points[68]).norm()) == pytest.approx(expected, rel=1e-4)
    assert 0.5 < expected < 20


def test_turning_and_walking_about_is_no_expression(head):
    motion = _motion(head, frames=3)
    generator = torch.Generator().manual_seed(1)
    moved = dataclasses.replace(
        motion,
        **{name: torch.rand(3, 3, generator=generator) for name in ("rotation", "neck_pose", "translation")},
    )
    torch.testing.assert_close(expression_space(head, moved), expression_space(head, motion))


def test_a_wide_open_mouth_is_farther_from_rest_than_a_glance(head):
    motion = FlameMotion.zeros(3, head.model.num_shape, head.model.num_expr)
    motion.jaw_pose[1, 0] = 0.3
    motion.eyes_pose[2, [1, 4]] = 0.3
    rest, wide, glance = expression_space(head, motion)
    assert (wide - rest).norm() > 3 * (glance - rest).norm() > 0


def test_what_never_moves_takes_no_memory(head):
    still = FlameMotion.zeros(4, head.model.num_shape, head.model.num_expr)
    assert expression_space(head, still).shape == (4, 0)
    only_eyes = dataclasses.replace(still, eyes_pose=torch.linspace(0, 0.2, 24).reshape(4, 6))
    columns = expression_space(head, only_eyes).shape[1]
    assert 0 < columns < 0.5 * 3 * head.model.num_vertices
