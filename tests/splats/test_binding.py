"""Triangle frames and the way from local to world, against naive formulas and properties."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.transform import Rotation

from edit3dgs_ns.splats.binding import (
    WorldGaussians,
    local_to_world,
    quat_multiply,
    rotmat_to_quat,
    triangle_frames,
    world_to_local,
)


def _mesh(
    batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    vertices = torch.randn(*batch, 9, 3, generator=generator, dtype=torch.float64).to(dtype)
    faces = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 4, 8], [2, 1, 0]])
    return vertices, faces


def _gaussians(
    count: int, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    draws = [torch.randn(count, n, generator=generator, dtype=torch.float64).to(dtype) for n in (3, 4, 3)]
    return draws[0], draws[1], draws[2]


def _wxyz_matrix(quats: torch.Tensor) -> torch.Tensor:
    flat = quats.reshape(-1, 4)[:, [1, 2, 3, 0]].numpy()
    return torch.from_numpy(Rotation.from_quat(flat).as_matrix()).reshape(*quats.shape[:-1], 3, 3)


def test_frame_of_a_right_triangle_by_hand() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 1, 0]])
    frames = triangle_frames(vertices, torch.tensor([[0, 1, 2]]))
    expected = torch.tensor(
        [[1.0, 0, 0], [0, 0, 1], [0, 1, 0]]
    ).T  # a0 = x, a1 = z (the normal), a2 = -(a1 x a0) = -y
    expected[:, 2] = torch.tensor([0.0, -1, 0])
    torch.testing.assert_close(frames.rotation[0], expected)
    torch.testing.assert_close(frames.centre[0], torch.tensor([2 / 3, 1 / 3, 0]))
    torch.testing.assert_close(frames.size[0], torch.tensor(1.5))  # (base 2 + height 1) / 2


@pytest.mark.parametrize("batch", [(), (1,), (3, 2)])
def test_frames_are_rotations_and_follow_the_mesh(batch: tuple[int, ...]) -> None:
    vertices, faces = _mesh(batch)
    frames = triangle_frames(vertices, faces)
    eye = torch.eye(3, dtype=torch.float64).expand(*batch, len(faces), 3, 3)
    torch.testing.assert_close(frames.rotation.transpose(-1, -2) @ frames.rotation, eye)
    torch.testing.assert_close(
        torch.linalg.det(frames.rotation), torch.ones(*batch, len(faces), dtype=torch.float64)
    )
    # Turning, moving and scaling the mesh turns, moves and scales its frames.
    turn = torch.from_numpy(Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix())
    moved = triangle_frames(2.5 * vertices @ turn.T + 4.0, faces)
    torch.testing.assert_close(moved.rotation, turn @ frames.rotation)
    torch.testing.assert_close(moved.size, 2.5 * frames.size)
    torch.testing.assert_close(moved.centre, 2.5 * frames.centre @ turn.T + 4.0)


@pytest.mark.parametrize("batch", [(), (4,)])
def test_local_to_world_matches_covariances(batch: tuple[int, ...]) -> None:
    """Mean and covariance, computed with matrices alone, face by face."""
    vertices, faces = _mesh(batch)
    frames = triangle_frames(vertices, faces)
    binding = torch.tensor([0, 4, 2, 2, 1, 3])
    means, quats, scales = _gaussians(len(binding))
    world = local_to_world(means, quats, scales, binding, frames)
    local_rotation = _wxyz_matrix(quats)
    world_rotation = _wxyz_matrix(world.quats)
    for n, face in enumerate(binding.tolist()):
        rotation, size = frames.rotation[..., face, :, :], frames.size[..., face, None, None]
        mean = size[..., 0] * (rotation @ means[n]) + frames.centre[..., face, :]
        torch.testing.assert_close(world.means[..., n, :], mean)
        local_covariance = local_rotation[n] @ torch.diag(torch.exp(2 * scales[n])) @ local_rotation[n].T
        expected = size**2 * rotation @ local_covariance @ rotation.transpose(-1, -2)
        r = world_rotation[..., n, :, :]
        found = r @ torch.diag_embed(world.scales[..., n, :] ** 2) @ r.transpose(-1, -2)
        torch.testing.assert_close(found, expected)


def test_world_to_local_is_the_inverse() -> None:
    vertices, faces = _mesh()
    frames = triangle_frames(vertices, faces)
    binding = torch.tensor([0, 1, 2, 3, 4, 4])
    means, quats, scales = _gaussians(len(binding))
    back = world_to_local(local_to_world(means, quats, scales, binding, frames), binding, frames)
    torch.testing.assert_close(back.means, means)
    torch.testing.assert_close(torch.log(back.scales), scales)
    torch.testing.assert_close(_wxyz_matrix(back.quats), _wxyz_matrix(quats))


def test_gaussians_move_rigidly_with_a_rigid_mesh() -> None:
    vertices, faces = _mesh()
    binding = torch.arange(len(faces))
    means, quats, scales = _gaussians(len(faces))
    turn = torch.from_numpy(Rotation.from_rotvec([2.0, 0.4, -1.7]).as_matrix())
    before = local_to_world(means, quats, scales, binding, triangle_frames(vertices, faces))
    after = local_to_world(means, quats, scales, binding, triangle_frames(vertices @ turn.T + 1, faces))
    torch.testing.assert_close(after.means, before.means @ turn.T + 1)
    torch.testing.assert_close(after.scales, before.scales)
    torch.testing.assert_close(_wxyz_matrix(after.quats), turn @ _wxyz_matrix(before.quats))


def test_rotmat_to_quat_at_all_kinds_of_rotations() -> None:
    generator = torch.Generator().manual_seed(0)
    axes = torch.nn.functional.normalize(
        torch.randn(400, 3, generator=generator, dtype=torch.float64), dim=-1
    )
    angles = torch.cat(
        [torch.linspace(0, 2 * torch.pi, 396, dtype=torch.float64), torch.tensor([torch.pi] * 4)]
    )
    axes[-3:] = torch.eye(3, dtype=torch.float64)  # half turns about the axes: the hardest case
    matrices = torch.from_numpy(Rotation.from_rotvec((axes * angles[:, None]).numpy()).as_matrix())
    quats = rotmat_to_quat(matrices)
    torch.testing.assert_close(quats.norm(dim=-1), torch.ones(400, dtype=torch.float64))
    torch.testing.assert_close(_wxyz_matrix(quats), matrices)


def test_quat_multiply_composes() -> None:
    _, a, _ = _gaussians(20)
    b = a.flip(0)
    a, b = (torch.nn.functional.normalize(q, dim=-1) for q in (a, b))
    torch.testing.assert_close(_wxyz_matrix(quat_multiply(a, b)), _wxyz_matrix(a) @ _wxyz_matrix(b))


def test_gradients() -> None:
    vertices, faces = _mesh()
    binding = torch.tensor([0, 3, 3])
    means, quats, scales = _gaussians(3)

    def world(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = local_to_world(*inputs[1:], binding, triangle_frames(inputs[0], faces))
        return result.means, result.quats, result.scales

    inputs = tuple(t.clone().requires_grad_() for t in (vertices, means, quats, scales))
    assert torch.autograd.gradcheck(world, inputs)


def test_collapsed_triangles_stay_finite() -> None:
    vertices = torch.zeros(3, 3, requires_grad=True)
    frames = triangle_frames(vertices, torch.tensor([[0, 1, 2]]))
    result = local_to_world(torch.ones(1, 3), torch.ones(1, 4), torch.zeros(1, 3), torch.tensor([0]), frames)
    (result.means.sum() + result.scales.sum()).backward()
    assert vertices.grad is not None and torch.isfinite(vertices.grad).all()
    assert all(torch.isfinite(getattr(result, name)).all() for name in ("means", "quats", "scales"))
    assert isinstance(result, WorldGaussians)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_cpu_kernel_agrees_with_torch_in_values_and_gradients(
    dtype: torch.dtype, tolerance: float
) -> None:
    """Frames with a leading axis go through torch operations, those without through the kernel."""
    vertices, faces = _mesh(dtype=dtype)
    binding = torch.tensor([2, 0, 0, 4, 2, 2, 1])  # no Gaussian on face 3
    weights = _gaussians(7, dtype)
    outputs, gradients = [], []
    for lead in (True, False):
        leaves = [x.clone().requires_grad_() for x in (*_gaussians(7, dtype), vertices)]
        *local, moved = leaves
        world = local_to_world(*local, binding, triangle_frames(moved[None] if lead else moved, faces))
        shown = [x[0] if lead else x for x in (world.means, world.quats, world.scales)]
        sum((w * x).sum() for w, x in zip(weights, shown, strict=True)).backward()
        outputs.append(shown)
        gradients.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(outputs[1], outputs[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("face", [-1, 5])
def test_a_binding_beyond_the_mesh_is_refused(face: int) -> None:
    vertices, faces = _mesh()
    with pytest.raises(IndexError, match="of 5"):
        local_to_world(*_gaussians(1), torch.tensor([face]), triangle_frames(vertices, faces))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_the_kernels_of_frames_agree_with_torch_in_values_and_gradients(
    dtype: torch.dtype, tolerance: float
) -> None:
    """Vertices with a leading axis go through torch operations, those without through the kernels."""
    generator = torch.Generator().manual_seed(5)
    vertices = torch.randn(40, 3, generator=generator, dtype=torch.float64).to(dtype)
    # Turned in all ways: every case of the quaternions; and vertices that several faces share.
    faces = torch.stack([torch.randperm(40, generator=generator)[:3] for _ in range(30)])
    names = ("centre", "rotation", "size", "quats")
    outputs, gradients = [], []
    for lead in (True, False):
        leaf = vertices.clone().requires_grad_()
        frames = triangle_frames(leaf[None] if lead else leaf, faces)
        shown = {name: getattr(frames, name)[0] if lead else getattr(frames, name) for name in names}
        weights = torch.Generator().manual_seed(6)
        sum(
            (torch.randn(x.shape, generator=weights, dtype=dtype) * x).sum() for x in shown.values()
        ).backward()
        outputs.append({name: x.detach() for name, x in shown.items()})
        gradients.append(leaf.grad)
    assert len(outputs[0]["quats"].abs().argmax(dim=1).unique()) == 4
    torch.testing.assert_close(outputs[1], outputs[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=tolerance, atol=10 * tolerance)


def test_a_face_beyond_the_vertices_is_refused() -> None:
    with pytest.raises(IndexError, match="0 to 9 of 9"):
        triangle_frames(torch.zeros(9, 3), torch.tensor([[0, 1, 9]]))
