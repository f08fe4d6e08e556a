"""Which views of a batch are key views at a denoising step.

Source: Chen, Laina and Vedaldi, "DGE: Direct Gaussian 3D Editing by Consistent Multi-view Editing", ECCV 2024,
    section 3.2. Unlike there, the number of views need not be a multiple of the run's length, and a small batch has
    two key views: a single one does not show what the far side of the head looks like, so that the others would make
    that up each for itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float


def order_around_head(
    c2w: Float[np.ndarray, "views 4 4"] | None, timesteps: Sequence[int]
) -> tuple[int, ...]:
    """Positions of the views sorted by the direction they are seen from: around the vertical (y) axis, then by
    height, then by timestep. Without cameras: as they come.

    Only the cameras' orientations count, so that no centre of the head has to be known.
    """
    if c2w is None:
        return tuple(range(len(timesteps)))
    # The camera looks along its -z: its z axis points from what it sees to the camera.
    x, y, z = np.moveaxis(c2w[:, :3, 2].astype(np.float64), 1, 0)
    # Cameras of one rig position differ by rounding alone: they are neighbours in time, not in angle.
    azimuth, elevation = np.round(np.arctan2(x, z), 4), np.round(np.arctan2(y, np.hypot(x, z)), 4)
    order = sorted(range(len(timesteps)), key=lambda v: (azimuth[v], elevation[v], timesteps[v], v))
    return tuple(order)


def runs_of(order: Sequence[int], views_per_key: int, anchors: Sequence[int] = ()) -> list[tuple[int, ...]]:
    """Cut `order` into the fewest runs of at most `views_per_key` neighbours, of lengths as equal as can be.

    Anchors, which are key views at every step, are runs by themselves, at the end. Three views or more have two runs at least.
    """
    order = [view for view in order if view not in anchors]
    least = 2 if len(order) >= 3 and not anchors else 1
    count = max(-(-len(order) // views_per_key), least)
    edges = [run * len(order) // count for run in range(count + 1)]
    return [tuple(order[begin:end]) for begin, end in pairwise(edges)] + [(anchor,) for anchor in anchors]


def draw_key_views(runs: Sequence[Sequence[int]], seed: int, step: int) -> tuple[int, ...]:
    """One view of every run, ascending; what is drawn depends on the seed and the step alone."""
    generator = random.Random(f"{seed}/key views/{step}")
    return tuple(sorted(generator.choice(run) for run in runs))
