"""Farthest point sampling (greedy k-center)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def farthest_point_sampling(points: Float[np.ndarray, "points coordinates"], count: int) -> list[int]:
    """Returns the indices of `count` points that cover all points, in the order they are chosen (all points if there are fewer).

    The first is the point nearest to the mean; each next one is the farthest from those before (of several, the lowest
    index). So a longer result begins with the shorter one, and the first k cover the points for every k: no point is more
    than twice as far from its nearest one as the best k points would leave it (Gonzalez, "Clustering to minimize the maximum
    intercluster distance", Theoretical Computer Science 38, 1985).

    Costs one pass over the points for each that is chosen.
    """
    if count < 1 or len(points) == 0:
        return []
    chosen = [int(_distances(points, points.mean(axis=0)).argmin())]
    nearest = _distances(points, points[chosen[0]])
    while len(chosen) < min(count, len(points)):
        nearest[chosen[-1]] = -1.0  # equal points are chosen too, once each
        chosen.append(int(nearest.argmax()))
        np.minimum(nearest, _distances(points, points[chosen[-1]]), out=nearest)
    return chosen


def _distances(
    points: Float[np.ndarray, "points coordinates"], place: Float[np.ndarray, " coordinates"]
) -> Float[np.ndarray, " points"]:
    return np.linalg.norm(points - place, axis=1).astype(np.float64)
