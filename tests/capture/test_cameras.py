"""Cameras of the arc look at the target, and project it where they say."""

from __future__ import annotations

import numpy as np

from edit3dgs_ns.capture.cameras import FRONT_CAMERA, arc_cameras, arc_indices, project


def test_cameras_look_at_the_target() -> None:
    target = np.array([0.01, -0.02, 0.03])
    for count in (1, 2, 5, 16):
        cameras = arc_cameras(count, 550, 802, target, 0.36)
        indices = arc_indices(count)
        assert len(cameras) == count and FRONT_CAMERA in indices and len(set(indices)) == count
        for camera in cameras:
            (pixel,), (depth,) = project(target[None], camera)
            np.testing.assert_allclose(pixel, [275, 401], atol=1e-6)
            np.testing.assert_allclose(depth, 1.0, atol=1e-9)
            R = camera.c2w[:3, :3]
            np.testing.assert_allclose(R.T @ R, np.eye(3), atol=1e-12)
            assert np.linalg.det(R) > 0 and R[1, 1] > 0.8
    above, _ = project(target[None] + [0, 0.05, 0], cameras[FRONT_CAMERA])
    assert above[0, 1] < 401 - 50  # y counts downwards
