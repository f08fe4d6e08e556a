"""The rig of a glTF file stands where FLAME's own formula puts the head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel, FlamePose
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.splats.binding import WorldGaussians
from edit3dgs_ns.splats.glb import write_glb
from edit3dgs_ns.splats.head_rig import head_rig
from edit3dgs_ns.splats.rig import TrackedHead
from edit3dgs_ns.splats.world_splats import WorldSplats
from tests.gltf_reference import posed_gltf_mesh, read_gltf_splats


def random_pose(expressions: int) -> FlamePose:
    generator = torch.Generator().manual_seed(3)

    def some(width: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(1, width, generator=generator)

    return FlamePose(
        some(expressions, 0.3), some(3, 0.5), some(3, 0.3), some(3, 0.2), some(6, 0.3), some(3, 0.4)
    )


@pytest.mark.parametrize("named", [True, False])
def test_the_mesh_in_the_file_is_posed_as_flame_poses_it(named: bool, tmp_path: Path) -> None:
    """With a morph target for every expression, and with the strongest 20, the others baked in."""
    assets = load_assets()
    count = assets.exprdirs.shape[2]
    names = [f"action {index}" for index in range(count)] if named else None
    pose = random_pose(count)
    generator = torch.Generator().manual_seed(1)
    shape = 0.5 * torch.randn(assets.shapedirs.shape[2], generator=generator)
    head = TrackedHead(
        FlameModel.from_assets(assets), FlameMotion(shape=shape, static_offset=None, **vars(pose))
    )
    # One Gaussian thinner than any file may hold, of degree 1.
    quats = torch.tensor([[0.5, 0.5, -0.5, 0.5]])
    gaussians = WorldGaussians(torch.rand(1, 3), quats, torch.tensor([[0.0, 6e-9, 0.01]]))
    splats = WorldSplats(gaussians, torch.tensor([0.25]), torch.rand(1, 4, 3))
    rig = head_rig(head, pose, names)
    write_glb(tmp_path / "a.glb", splats, rig)

    expected = head.vertices_of(pose).detach().numpy()
    np.testing.assert_allclose(posed_gltf_mesh(tmp_path / "a.glb"), expected, atol=2e-6)
    assert len(rig.target_names) == (count if named else min(20, count))
    found = read_gltf_splats(tmp_path / "a.glb")
    assert found["scales"].min() >= 1e-6 and found["scales"].max() == np.float32(0.01)
    np.testing.assert_array_equal(found["quats"], quats)
    np.testing.assert_array_equal(found["colors"], splats.colors)
