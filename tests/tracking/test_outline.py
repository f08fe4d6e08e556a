"""A head whose outline does not move as it was fitted: how it is turned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.tracking.banded import SequenceSystem
from edit3dgs_ns.tracking.outline import SIDE, OutlineTerm
from edit3dgs_ns.tracking.surface_points import NECK, NUM_POSE, ROTATION, TRANSLATION
from tests.tracking.test_hair_offsets import HEAD, SIZE, silhouette, turning, with_hair

FRAMES, FRAME, OFF = 5, 2, 0.05
"""In one frame of five the fitted neck is turned by so many radians too far."""
HELD = 1e3
"""Precision of the prior of a neck's angles, per square radian."""
FOCAL = 240.0
PLACE = np.array([0.0, 0.0, 0.9])
CAMERA = Camera(
    np.block([[np.eye(3), PLACE[:, None]], [np.zeros(3), 1.0]]),
    np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]]),
    SIZE,
    SIZE,
)
"""Looks along -z, as the fit's does."""


def true_motion() -> FlameMotion:
    """A head that turns a little."""
    motion = turning(FRAMES)
    motion.rotation.mul_(0.2)
    return motion


def fitted(axis: int) -> FlameMotion:
    motion = replace(true_motion(), static_offset=torch.from_numpy(with_hair()).float())
    motion.neck_pose[FRAME, axis] += OFF
    return motion


def rows_of(motion: FlameMotion) -> torch.Tensor:
    """Rows of `surface_points`, in the camera's space."""
    rows = torch.zeros(FRAMES, NUM_POSE + HEAD.exprdirs.shape[2])
    rows[:, ROTATION], rows[:, NECK] = motion.rotation, motion.neck_pose
    rows[:, TRANSLATION] = motion.translation - torch.from_numpy(PLACE).float()
    return rows


@pytest.fixture(scope="module")
def masks() -> list[np.ndarray]:
    """The true outlines, of hair that is everywhere a little thicker than what was found of it."""
    return [silhouette(true_motion(), t, 1.15 * with_hair(), CAMERA) for t in range(FRAMES)]


def neck_after_steps(term: OutlineTerm, motion: FlameMotion, steps: int = 4) -> torch.Tensor:
    """Gauss-Newton steps of the necks alone, each held a little: what the outline does not tell stays as it is."""
    frames, shape = rows_of(motion).double(), motion.shape.double()
    for _ in range(steps):
        system = SequenceSystem.zeros(FRAMES, frames.shape[1], len(shape) + 1)
        term.add_to(system, frames, shape, float(np.log(FOCAL)))
        assert not system.shared.any() and not system.border.any()
        blocks = torch.from_numpy(system.blocks[:, NECK, NECK])
        step = torch.linalg.solve(
            blocks + HELD * torch.eye(3), torch.from_numpy(system.right_frames[:, NECK])
        )
        frames[:, NECK] += step
    return frames[:, NECK]


@pytest.mark.parametrize("axis", [0, 2], ids=["pitch", "roll"])
def test_a_turn_that_the_outline_does_not_follow_is_undone(masks: list[np.ndarray], axis: int) -> None:
    """Of five frames; yaw shows less in the outline of a head that is nearly round, and in more frames."""
    motion = fitted(axis)
    neck = neck_after_steps(OutlineTerm.of(HEAD, motion, CAMERA, masks), motion)[:, axis]
    assert abs(float(neck[FRAME])) < 0.5 * OFF
    others = torch.arange(FRAMES) != FRAME
    assert neck[others].abs().max() < 0.3 * OFF


def test_images_of_any_size_are_compared(masks: list[np.ndarray]) -> None:
    """Distances are those of the image, in metres, however small it is drawn."""
    assert SIZE < SIDE
    motion = fitted(1)
    K = CAMERA.K.copy()
    K[:2] *= 3
    large = Camera(CAMERA.c2w, K, 3 * SIZE, 3 * SIZE)
    small = OutlineTerm.of(HEAD, motion, CAMERA, masks)
    drawn = OutlineTerm.of(
        HEAD, motion, large, [np.kron(mask, np.ones((3, 3), np.float32)) for mask in masks]
    )
    rms = [
        float(((t.distance * t.known)[FRAME] ** 2).sum() / t.known[FRAME].sum()) ** 0.5
        for t in (small, drawn)
    ]
    assert rms[1] == pytest.approx(rms[0], rel=0.2)
    assert torch.allclose(drawn.per_metre.amax(), 3 * small.per_metre.amax(), rtol=0.05)


def test_masks_that_fill_the_image_say_nothing() -> None:
    motion = fitted(1)
    term = OutlineTerm.of(HEAD, motion, CAMERA, [np.ones((SIZE, SIZE), np.float32)] * FRAMES)
    system = SequenceSystem.zeros(FRAMES, NUM_POSE + HEAD.exprdirs.shape[2], len(motion.shape) + 1)
    assert term.add_to(system, rows_of(motion), motion.shape, float(np.log(FOCAL))) == 0
    assert not system.blocks.any()
