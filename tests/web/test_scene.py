"""What a page draws is the avatar that the project's own code shows, as finely as it is stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.motion import FRAME_WIDTHS, FlameMotion
from edit3dgs_ns.splats.rig import TrackedHead
from edit3dgs_ns.web.avatar import web_motion, web_rig
from edit3dgs_ns.web.scene import WebCamera, unpacked
from tests.flame.helpers import random_assets
from tests.web_scenes import ball, pose_at, posed, shown

GAUSSIANS_WITHIN = 8e-5
"""Metres: a fifth of a pixel of an image 800 pixels high. The ball's triangles are three times a head's."""


@pytest.mark.parametrize(("degree", "rank", "before"), [(0, 0, False), (2, 1, True), (3, 3, False)])
def test_the_stored_avatar_is_the_avatar(degree: int, rank: int, before: bool) -> None:
    scene = ball(degree=degree, rank=rank, before=before).centred()
    back = unpacked(scene.packed())
    np.testing.assert_array_equal(back.rig.faces, scene.rig.faces)
    assert back.rig.names == scene.rig.names and back.rig.parents == scene.rig.parents
    assert back.fps == scene.fps and back.camera.tangents == scene.camera.tangents
    assert (back.before is None) == (scene.before is None)
    looks = [(scene.gaussians, back.gaussians)]
    if scene.before is not None and back.before is not None:
        looks.append((scene.before, back.before))
    for frame in range(len(scene.motion)):
        pose, stored_pose = pose_at(scene.motion, frame), pose_at(back.motion, frame)
        for given, found in looks:
            world, colors = shown(scene, pose, given)
            stored, stored_colors = shown(back, stored_pose, found)
            assert (stored.means - world.means).norm(dim=1).max() < GAUSSIANS_WITHIN
            np.testing.assert_allclose(stored.scales, world.scales, rtol=5e-3)
            same = (stored.quats * world.quats).sum(dim=1).abs()  # q and -q are the same rotation
            assert same.min() > 1 - 1e-5
            assert (stored_colors - colors).abs().max() < 1e-2  # a grey level of 256 is 1.4e-2


def test_centred_changes_nothing_but_the_origin() -> None:
    scene = ball()
    centred = replace(scene, camera=_moved(scene.camera, 3.0)).centred()
    for frame in range(len(scene.motion)):
        before, after = (posed(s.rig, pose_at(s.motion, frame)) for s in (scene, centred))
        np.testing.assert_allclose(after, before - 3.0, atol=1e-6)
    np.testing.assert_allclose(centred.camera.position, scene.camera.position, atol=1e-12)
    np.testing.assert_array_equal(centred.camera.target, 0)


def test_an_avatar_with_holes_is_refused() -> None:
    scene = ball()
    scene.motion.expr[1, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        scene.packed()


def test_the_rig_poses_the_head_as_the_head_model_does() -> None:
    """Correctives, joints that follow the expression, an identity: all that a head model can have."""
    assets = random_assets(seed=3)
    rng = np.random.default_rng(4)
    motion = FlameMotion(
        shape=torch.from_numpy(rng.normal(0, 1, assets.shapedirs.shape[2])).float(),
        static_offset=torch.from_numpy(rng.normal(0, 0.01, assets.v_template.shape)).float(),
        **{
            name: torch.from_numpy(rng.normal(0, 0.4, (3, width))).float()
            for name, width in {"expr": assets.exprdirs.shape[2] - 1, **FRAME_WIDTHS}.items()
        },
    )
    head = TrackedHead(FlameModel.from_assets(assets), motion)
    rig = web_rig(head, None, torch.zeros(0, assets.exprdirs.shape[2]), torch.zeros(0, 3))
    played = web_motion(head.motion(), head.flame.num_expr)
    expected = head.vertices(torch.arange(3)).detach().numpy()
    for frame in range(3):
        np.testing.assert_allclose(posed(rig, pose_at(played, frame)), expected[frame], atol=2e-6)


def _moved(camera: WebCamera, distance: float) -> WebCamera:
    return replace(camera, position=camera.position + distance, target=camera.target + distance)
