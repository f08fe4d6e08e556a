"""How far two pictures of a moving head disagree about the same spot of its surface.

The rig says which place on the canonical head every pixel shows (`splats.rig_maps.canonical_maps`): two pixels of any two
cameras at any two moments show the same spot where these places agree. That takes the part that optical flow has in the
usual figures, and it is exact where flow is a guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.spatial import cKDTree

_NEIGHBOURS = 4
"""Pixels that are blended for a spot between them, as bilinear sampling does."""
_REACH = 1.5
"""A spot farther from all pixels than this many times their spacing is not shown."""
_FEWEST = 50
"""Fewer common pixels than this say nothing."""


@dataclass(frozen=True)
class SameSpots:
    """Where a second picture shows what the first one shows."""

    pixels: Int64[np.ndarray, " spots"]
    """Flat indices into the first picture."""
    others: Int64[np.ndarray, "spots neighbours"]
    """Flat indices into the second picture."""
    weights: Float[np.ndarray, "spots neighbours"]
    """How they are blended; rows sum to 1."""

    @classmethod
    def between(
        cls, first: Float[np.ndarray, "height width 3"], second: Float[np.ndarray, "height width 3"]
    ) -> SameSpots:
        """Match two canonical maps (metres, NaN where a pixel shows nothing certain)."""
        wanted, offered = first.reshape(-1, 3), second.reshape(-1, 3)
        ask, have = (np.flatnonzero(np.isfinite(rows).all(axis=1)) for rows in (wanted, offered))
        if len(have) < _NEIGHBOURS or not len(ask):
            return cls(ask[:0], np.zeros((0, _NEIGHBOURS), np.int64), np.zeros((0, _NEIGHBOURS)))
        tree = cKDTree(offered[have])
        spacing = tree.query(offered[have], k=2)[0][:, 1]
        distance, found = tree.query(wanted[ask], k=_NEIGHBOURS)
        shown = distance[:, 0] <= _REACH * spacing[found[:, 0]]
        # Inverse distances; a pixel that is farther than the reach does not show the spot and has no say.
        weights = 1 / (distance[shown] + 1e-6)
        weights[distance[shown] > _REACH * 1.5 * spacing[found[shown, :1]]] = 0.0
        weights[:, 0] = np.maximum(weights[:, 0], 1e-9)
        return cls(ask[shown], have[found[shown]], weights / weights.sum(axis=1, keepdims=True))

    def __len__(self) -> int:
        return len(self.pixels)

    def difference(
        self, first: Float[np.ndarray, "height width 3"], second: Float[np.ndarray, "height width 3"]
    ) -> float:
        """Mean absolute difference of colours (0 to 1) over all spots that both pictures show; NaN where these are too few."""
        if len(self) < _FEWEST:
            return float("nan")
        here = first.reshape(-1, 3)[self.pixels].astype(np.float64)
        there = np.einsum("snc,sn->sc", second.reshape(-1, 3)[self.others].astype(np.float64), self.weights)
        return float(np.abs(here - there).mean())


def temporal_flicker(
    images: Float[np.ndarray, "frames height width 3"], spots: list[SameSpots]
) -> Float[np.ndarray, " steps"]:
    """Temporal flicker of each step: mean |I_(i+1)(x) - I_i(y)| over pixels x, y that show the same spot; lower is better.

    The warping error of Lai et al. ("Learning blind video temporal consistency", ECCV 2018, section 4.2), absolute instead of
    squared, with the rig's correspondences instead of optical flow and its occlusions instead of a flow check. What moves with
    the head costs nothing; light that changes and resampling do, so that the unedited avatar's own flicker stands beside it.

    Args:
        images: frames of one camera path in order, in [0, 1].
        spots: `SameSpots.between(map of frame i + 1, map of frame i)` for every step.
    """
    return np.array([s.difference(images[i + 1], images[i]) for i, s in enumerate(spots)])


def view_disagreement(
    images: Sequence[Float[np.ndarray, "height width 3"]], spots: Mapping[tuple[int, int], SameSpots]
) -> float:
    """View disagreement: mean |I_a(x) - I_b(y)| over pairs of views and pixels x, y that show the same spot; lower is better.

    Of the *fitted* avatar: edits that contradict each other cannot all be fitted by one set of Gaussians, except through colours
    that change with the direction of view, and these are what this measures. Highlights count as well, so that the unedited
    avatar's own disagreement stands beside it. Like MEt3R (Asim et al., CVPR 2025), with the rig's correspondences instead of
    estimated ones and colours instead of features.

    Args:
        images: renders of one moment, one for each view, in [0, 1].
        spots: for pairs (a, b) of views, `SameSpots.between(map of a, map of b)`.
    """
    found = [s.difference(images[a], images[b]) for (a, b), s in spots.items()]
    known = [value for value in found if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def covered(map_: Float[np.ndarray, "height width 3"]) -> Bool[np.ndarray, "height width"]:
    """Where a canonical map knows what is shown."""
    return np.isfinite(map_).all(axis=-1)
