"""Camera paths stay at their distance, keep looking at the target, and swing as far as asked."""

from __future__ import annotations

import numpy as np
import pytest

from edit3dgs_ns.evaluation.camera_paths import focus_point, orbit, sway

TARGET = np.array([0.1, -0.05, 0.02])


def looking_at(position: np.ndarray) -> np.ndarray:
    back = (position - TARGET) / np.linalg.norm(position - TARGET)
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
    pose[:3, 3] = position
    return pose


def test_sway() -> None:
    start = looking_at(TARGET + np.array([0.0, 0.0, 1.2]))
    poses = sway(start, TARGET, count=40, angle=0.4, lift=0.1)
    offsets = poses[:, :3, 3] - TARGET
    assert np.allclose(poses[0], start) and np.allclose(poses[20], start)
    assert np.allclose(np.linalg.norm(offsets, axis=1), 1.2)
    # The optical axis (-z) points from the camera to the target.
    assert np.allclose(-poses[:, :3, 2], -offsets / 1.2)
    assert np.allclose(poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.eye(3))
    azimuth = np.arctan2(offsets[:, 0], offsets[:, 2])
    assert azimuth.max() == pytest.approx(0.4) and azimuth.min() == pytest.approx(-0.4)
    elevation = np.arcsin(offsets[:, 1] / 1.2)
    assert np.abs(elevation).max() == pytest.approx(0.1, abs=1e-2)


def test_orbit_goes_around_once_and_evenly() -> None:
    start = looking_at(TARGET + np.array([0.3, 0.2, 1.2]))
    poses = orbit(start, TARGET, count=8)
    offsets = poses[:, :3, 3] - TARGET
    assert np.allclose(poses[0], start) and np.allclose(offsets[:, 1], 0.2)
    assert np.allclose(np.linalg.norm(offsets, axis=1), np.linalg.norm(offsets[0]))
    assert np.allclose(-poses[:, :3, 2], -offsets / np.linalg.norm(offsets[0]))
    azimuth = np.unwrap(np.arctan2(offsets[:, 0], offsets[:, 2]))
    assert np.allclose(np.diff(azimuth), np.pi / 4)  # the ninth pose would be the first again


def test_focus_point() -> None:
    poses = np.stack(
        [looking_at(TARGET + np.array(p)) for p in ([1.0, 0, 0.3], [0, 0.5, 1.0], [-1, 0.2, 0.4])]
    )
    assert np.allclose(focus_point(poses), TARGET)
    with pytest.raises(ValueError, match="parallel"):
        focus_point(poses[:1])
