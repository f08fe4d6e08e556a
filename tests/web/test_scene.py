"""What a page draws is the avatar that the project's own code shows, as finely as it is stored."""

from __future__ import annotations

import numpy as np
import pytest

from edit3dgs_ns.web.scene import STEPS, unpacked
from tests.web_scenes import ball, shown

GAUSSIANS_WITHIN = 5e-5
"""Metres: an eighth of a pixel of a picture 800 pixels high."""


@pytest.mark.parametrize(("degree", "rank"), [(0, 0), (2, 1), (3, 3)])
def test_the_stored_avatar_is_the_avatar(degree: int, rank: int) -> None:
    scene = ball(degree=degree, rank=rank).centred()
    back = unpacked(scene.packed())
    np.testing.assert_allclose(back.vertices, scene.vertices, rtol=0, atol=STEPS["vertices"] / 2 * 1.001)
    np.testing.assert_array_equal(back.faces, scene.faces)
    assert back.fps == scene.fps and back.camera.tangents == scene.camera.tangents
    for frame in range(len(scene.vertices)):
        (world, colors), (stored, stored_colors) = shown(scene, frame), shown(back, frame)
        assert (stored.means - world.means).norm(dim=1).max() < GAUSSIANS_WITHIN
        np.testing.assert_allclose(stored.scales, world.scales, rtol=5e-3)
        same = (stored.quats * world.quats).sum(dim=1).abs()  # q and -q are the same rotation
        assert same.min() > 1 - 1e-5
        assert (stored_colors - colors).abs().max() < 1e-2  # a grey level of 256 is 1.4e-2


def test_centred_changes_nothing_but_the_origin() -> None:
    scene = ball()
    moved = type(scene)(**{**vars(scene), "vertices": scene.vertices + 3.0})
    there = type(moved)(**{**vars(moved), "camera": _moved(scene.camera, 3.0)}).centred()
    np.testing.assert_allclose(there.vertices, scene.vertices, atol=1e-12)
    np.testing.assert_allclose(there.camera.position, scene.camera.position, atol=1e-12)
    np.testing.assert_array_equal(there.camera.target, 0)


def test_an_avatar_with_holes_is_refused() -> None:
    scene = ball()
    scene.vertices[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        scene.packed()


def _moved(camera, distance: float):
    return type(camera)(
        **{**vars(camera), "position": camera.position + distance, "target": camera.target + distance}
    )
