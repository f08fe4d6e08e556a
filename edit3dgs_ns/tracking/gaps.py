"""Frames of a driving video that show no face: the motion goes on evenly over them, so that it lasts as long as the video.

Captures leave such frames out: an avatar must not be trained on guesses. A motion without them would jump, and run ahead of the
video. At the borders of a gap half a face is in the image, and what is fitted to it may be far off: frames there to which the head
turns at once count as gap, too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation
from torch import Tensor

from edit3dgs_ns.capture.driver import Driver, DriverImages
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.openness import FaceOpenness

FASTEST_TURN = 120.0
"""Degrees a second that a head turns beside a gap."""
LEAST_STEP, MOST_STEP = 5.0, 15.0
"""Degrees from one frame to the next that are allowed at any rate of frames, and at none."""
BORDER = 6
"""Frames before and after a gap that may be added to it."""


def with_gaps_filled(driver: Driver, numbers: Int[np.ndarray, " T"], found: Bool[np.ndarray, " F"]) -> Driver:
    """The driver with a row for every frame of the video from its first to its last, and a note on those that were filled.

    Args:
        driver: one row for each frame that shows a face.
        numbers: of these frames, in the video.
        found: whether each frame of the video shows a face.
    """
    recorded, shown = driver.recorded, np.arange(numbers[0], numbers[-1] + 1)
    filled, fps = int((~found[shown]).sum()), recorded.fps
    if not filled:
        return driver
    most = min(MOST_STEP, max(LEAST_STEP, FASTEST_TURN / fps)) if fps else MOST_STEP
    trusted = _trusted(recorded.motion, numbers, most)
    motion = recorded.motion.with_pose(recorded.motion.pose(trusted.tolist()))
    places = torch.from_numpy(np.interp(shown, numbers[trusted], np.arange(len(trusted))))
    motion = motion.with_pose(motion.interpolate((places / (len(motion) - 1)).float()))
    openness = recorded.openness
    if openness is not None:
        openness = FaceOpenness(_at(openness.lids[trusted], places), _at(openness.mouth[trusted], places))
    images = driver.images
    if images is not None:
        rows = np.searchsorted(numbers, shown, side="right") - 1  # the last one that shows the face
        masks = None if images.masks is None else tuple(images.masks[row] for row in rows)
        images = DriverImages(tuple(images.images[row] for row in rows), masks)
    seconds = f" ({filled / fps:.1f} of {len(shown) / fps:.1f} s)" if fps else ""
    note = f"{filled} of {len(shown)} frames{seconds} show no whole face: the motion goes on evenly over them, which is a guess"
    recorded = replace(recorded, motion=motion, openness=openness, notes=(*recorded.notes, note))
    return Driver(recorded, images)


def _trusted(motion: FlameMotion, numbers: Int[np.ndarray, " T"], most: float) -> Int[np.ndarray, " K"]:
    """Rows without those beside a gap to which the head turns by more degrees a frame; the first and the last always stay."""
    turn = Rotation.from_rotvec(motion.rotation.numpy()) * Rotation.from_rotvec(motion.neck_pose.numpy())
    before = np.flatnonzero(np.diff(numbers) > 1)
    if not len(before):
        return np.arange(len(numbers))
    borders = np.concatenate([before, before + 1])
    away = np.abs(np.arange(len(numbers))[:, None] - borders).min(1)
    away[[0, -1]] = BORDER
    rows = np.arange(len(numbers))
    while len(rows) > 2:
        angle = np.degrees((turn[rows[:-1]].inv() * turn[rows[1:]]).magnitude())
        passed = np.diff(numbers[rows])
        # A head may turn faster while it is away than it is trusted to beside the gap.
        limit = np.where(passed == 1, most, MOST_STEP * passed)
        pairs = np.stack([rows[:-1], rows[1:]], axis=1)[angle > limit]
        nearer = {int(pair[away[pair].argmin()]) for pair in pairs}
        dropped = {row for row in nearer if away[row] < BORDER}
        if not dropped:
            break
        rows = np.array([row for row in rows if row not in dropped])
    return rows


def _at(values: Float[Tensor, "K ..."], places: Float[Tensor, " F"]) -> Float[Tensor, "F ..."]:
    """Rows at places between 0 and K - 1, mixed linearly."""
    low = places.floor().long()
    high = (low + 1).clamp(max=len(values) - 1)
    share = (places - low).to(values).unflatten(0, (-1, *[1] * (values.ndim - 1)))
    return values[low] * (1 - share) + values[high] * share
