"""Colour differences at corresponding surface points of two renders of a moving head.

The rig gives the point of the canonical head that every pixel shows (`splats.rig_maps.canonical_maps`): pixels of any two cameras
at any two timesteps correspond where these points agree. That replaces the optical flow of the usual metrics, and it is exact
where flow is an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from scipy.spatial import cKDTree

_NEIGHBOURS = 4
"""Pixels that are blended for a surface point between them, as bilinear sampling does."""
_REACH = 1.5
"""A surface point farther from all pixels than this many times their spacing is not visible."""
_MIN_PIXELS = 50
"""With fewer corresponding pixels a difference is NaN."""


@dataclass(frozen=True)
class PixelMatches:
    """Pixels of one image, and the pixels of another one that show the same surface points."""

    pixels: Int64[np.ndarray, " matches"]
    """Flat indices into the first image."""
    neighbours: Int64[np.ndarray, "matches neighbours"]
    """Flat indices into the second image."""
    weights: Float[np.ndarray, "matches neighbours"]
    """Blending weights of the neighbours; rows sum to 1."""

    @classmethod
    def between(
        cls, first: Float[np.ndarray, "height width 3"], second: Float[np.ndarray, "height width 3"]
    ) -> PixelMatches:
        """Matches two canonical maps (metres; NaN where the surface point is unknown)."""
        queries, candidates = first.reshape(-1, 3), second.reshape(-1, 3)
        known, offered = (np.flatnonzero(np.isfinite(rows).all(axis=1)) for rows in (queries, candidates))
        if len(offered) < _NEIGHBOURS or not len(known):
            return cls(known[:0], np.zeros((0, _NEIGHBOURS), np.int64), np.zeros((0, _NEIGHBOURS)))
        tree = cKDTree(candidates[offered])
        spacing = tree.query(candidates[offered], k=2)[0][:, 1]
        distance, nearest = tree.query(queries[known], k=_NEIGHBOURS)
        visible = distance[:, 0] <= _REACH * spacing[nearest[:, 0]]
        # Inverse distances; a pixel beyond the reach does not show the surface point and gets no weight.
        weights = 1 / (distance[visible] + 1e-6)
        weights[distance[visible] > _REACH * 1.5 * spacing[nearest[visible, :1]]] = 0.0
        weights[:, 0] = np.maximum(weights[:, 0], 1e-9)
        return cls(known[visible], offered[nearest[visible]], weights / weights.sum(axis=1, keepdims=True))

    def __len__(self) -> int:
        return len(self.pixels)

    def difference(
        self, first: Float[np.ndarray, "height width 3"], second: Float[np.ndarray, "height width 3"]
    ) -> float:
        """Mean absolute colour difference (0 to 1) over all matches; NaN with fewer than 50."""
        if len(self) < _MIN_PIXELS:
            return float("nan")
        here = first.reshape(-1, 3)[self.pixels].astype(np.float64)
        neighbours = second.reshape(-1, 3)[self.neighbours].astype(np.float64)
        return float(np.abs(here - np.einsum("snc,sn->sc", neighbours, self.weights)).mean())


def temporal_flicker(
    images: Float[np.ndarray, "frames height width 3"], matches: list[PixelMatches]
) -> Float[np.ndarray, " steps"]:
    """Temporal flicker of each step: mean |I_(i+1)(x) - I_i(y)| over corresponding pixels x, y; lower is better.

    The warping error of Lai et al. ("Learning blind video temporal consistency", ECCV 2018, section 4.2), absolute instead of
    squared, with the rig's correspondences instead of optical flow and its occlusions instead of a flow check. Motion of the head
    costs nothing; changing light and resampling do, so that the unedited avatar's own flicker is reported beside it.

    Args:
        images: frames of one camera path in order, in [0, 1].
        matches: `PixelMatches.between(map of frame i + 1, map of frame i)` for every step.
    """
    return np.array([step.difference(images[i + 1], images[i]) for i, step in enumerate(matches)])


def view_disagreement(
    images: Sequence[Float[np.ndarray, "height width 3"]], matches: Mapping[tuple[int, int], PixelMatches]
) -> float:
    """View disagreement: mean |I_a(x) - I_b(y)| over pairs of views and their corresponding pixels x, y; lower is better.

    Of the *fitted* avatar: edits that contradict each other cannot all be fitted by one set of Gaussians, except through
    view-dependent colours, and these are what this measures. Highlights count as well, so that the unedited avatar's own
    disagreement is reported beside it. Like MEt3R (Asim et al., CVPR 2025), with the rig's correspondences instead of estimated
    ones and colours instead of features.

    Args:
        images: renders of one timestep, one for each view, in [0, 1].
        matches: for pairs (a, b) of views, `PixelMatches.between(map of a, map of b)`.
    """
    differences = [pair.difference(images[a], images[b]) for (a, b), pair in matches.items()]
    known = [value for value in differences if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
