"""Points on a posed head against the whole head model, and their derivatives against automatic ones."""

import dataclasses

import pytest
import torch

from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel, FlamePose
from edit3dgs_ns.flame.rotations import axis_angle_to_matrix
from edit3dgs_ns.tracking.surface_points import (
    EYES,
    JAW,
    NECK,
    NUM_POSE,
    ROTATION,
    TRANSLATION,
    SurfacePoints,
)

LANDMARKS, FRAMES = 40, 3


@pytest.fixture(scope="module")
def model() -> FlameModel:
    return FlameModel.from_assets(load_assets())


@pytest.fixture(scope="module")
def points(model: FlameModel) -> SurfacePoints:
    generator = torch.Generator().manual_seed(0)
    faces = torch.randint(len(model.faces), (LANDMARKS,), generator=generator)
    barycentric = torch.rand(LANDMARKS, 3, generator=generator)
    return SurfacePoints.of(model, faces, barycentric / barycentric.sum(1, keepdim=True))


def random_parameters(model: FlameModel, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = scale * torch.randn(FRAMES, NUM_POSE + model.num_expr, generator=generator).double()
    return 0.3 * torch.randn(model.num_shape, generator=generator).double(), frames


def test_positions_are_those_of_the_posed_head(model: FlameModel) -> None:
    faces = torch.arange(0, len(model.faces), len(model.faces) // LANDMARKS)
    barycentric = torch.tensor([0.2, 0.3, 0.5]).expand(len(faces), 3)
    shape, frames = random_parameters(model, 0.3)
    found = SurfacePoints.of(model, faces, barycentric).positions(shape, frames)
    pose = FlamePose(
        expr=frames[:, NUM_POSE:],
        rotation=frames[:, ROTATION],
        neck_pose=frames[:, NECK],
        jaw_pose=frames[:, JAW],
        eyes_pose=frames[:, EYES],
        translation=frames[:, TRANSLATION],
    )
    head = model.double().shaped(shape).posed(pose)
    model.float()
    expected = torch.einsum("k,tlkc->tlc", barycentric[0].double(), head[:, model.faces[faces]])
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-5, 0.4], ids=["at rest", "nearly", "turned"])
@pytest.mark.parametrize("pose_directions", [False, True])
def test_derivatives_are_the_automatic_ones(
    scale: float, pose_directions: bool, model: FlameModel, points: SurfacePoints
) -> None:
    if pose_directions:  # the open head has none, FLAME has
        rows = torch.randn(*points.template.shape, 36, generator=torch.Generator().manual_seed(2)).double()
        points = dataclasses.replace(points, posedirs=0.01 * rows)
    shape, frames = random_parameters(model, scale)

    def one_frame(frame: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
        return points.positions(shape, frame[None])[0]

    by_frame, by_shape = torch.func.vmap(torch.func.jacfwd(one_frame, argnums=(0, 1)), in_dims=(0, None))(
        frames, shape
    )
    # Two measurements of each point, linear in its position.
    rows = torch.randn(FRAMES, LANDMARKS, 2, 3, generator=torch.Generator().manual_seed(3)).double()
    posed = points.posed(shape, frames)
    found_by_frame, found_by_shape = posed.derivatives(rows)
    torch.testing.assert_close(posed.positions, points.positions(shape, frames))
    torch.testing.assert_close(found_by_frame, rows @ by_frame, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(found_by_shape, rows @ by_shape, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("pose_directions", [False, True])
def test_displaced_points_move_by_what_the_face_shows_in_the_heads_frame(
    pose_directions: bool, model: FlameModel, points: SurfacePoints
) -> None:
    generator = torch.Generator().manual_seed(4)
    if pose_directions:
        rows = torch.randn(*points.template.shape, 36, generator=generator).double()
        points = dataclasses.replace(points, posedirs=0.01 * rows)
    by_shape, by_expr = (
        0.01 * torch.randn(LANDMARKS, 3, count, generator=generator).double()
        for count in (model.num_shape, model.num_expr)
    )
    by_jaw = 0.01 * torch.randn(LANDMARKS, 3, generator=generator).double()
    shape, frames = random_parameters(model, 0.3)
    frames[:, JAW] = torch.tensor([0.3, 0.0, 0.0]).double()
    moved = points.displaced(by_shape, by_expr, by_jaw).positions(shape, frames)
    in_head = by_shape @ shape + torch.einsum("lce,te->tlc", by_expr, frames[:, NUM_POSE:])
    in_head = in_head + by_jaw * torch.sin(frames[:, JAW.start])[:, None, None]
    head_R = axis_angle_to_matrix(frames[:, ROTATION]) @ axis_angle_to_matrix(frames[:, NECK])
    expected = points.positions(shape, frames) + torch.einsum("tij,tlj->tli", head_R, in_head)
    torch.testing.assert_close(moved, expected, atol=1e-9, rtol=0)
