"""Matches by the place on the canonical head: the renderer knows which spot of the head every pixel shows.

Two pixels of any two views, at any two timesteps, show the same spot exactly when their rest positions on the canonical head
    agree. Unlike an epipolar line this is unique, holds across expressions, and knows what is hidden: a spot that a key view
    does not show has no near place among its tokens, and so no match.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.spatial import cKDTree
from torch import Tensor

from edit3dgs_ns.editing.correspondence import TokenMatches, blended, nearest_keys
from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.framing import Frame
from edit3dgs_ns.editing.token_grid import TokenPlaces, token_places

_FOOTPRINT = 0.75
"""A match lies at most this share of the key token's spacing away: of a regular grid no place is farther than 0.71. (On the demo's
avatar, at 64 x 64 tokens, 0.98 of the visible tokens are matched, and 0.08 of those that are hidden.)"""


class RigCorrespondence:
    """A `Correspondence` by canonical positions; matches are found once and kept, for they do not depend on features.

    Raises:
        ValueError: the request has no canonical maps or no cameras.
    """

    needs_features = False

    def __init__(self, request: EditRequest, frame: Frame, device: torch.device):
        if request.canonical is None or request.c2w is None:
            raise ValueError("Rig correspondence needs canonical maps and c2w of every view in the request.")
        self._request, self._frame, self._device = request, frame, device
        self._canonical = request.canonical
        self._places: dict[tuple[int, int], TokenPlaces] = {}
        self._pairs: dict[tuple[int, int, tuple[int, int]], Int64[np.ndarray, " tokens"]] = {}

    def match(
        self,
        views: Sequence[int],
        keys: Sequence[int],
        grid: tuple[int, int],
        queries: Float[Tensor, "views tokens channels"] | None = None,
        key_queries: Float[Tensor, "keys tokens channels"] | None = None,
    ) -> TokenMatches:
        """See `Correspondence.match`; features are not looked at."""
        nearest = nearest_keys(self._request, views, keys)
        pairs = [
            [self._pair(view, keys[place], grid) for place in places]
            for view, places in zip(views, nearest.place.tolist(), strict=True)
        ]
        return blended(torch.from_numpy(np.array(pairs)), nearest, self._device)

    def _pair(self, view: int, key: int, grid: tuple[int, int]) -> Int64[np.ndarray, " tokens"]:
        """The token of a key view for every token of a view, -1 without a match."""
        known = self._pairs.get((view, key, grid))
        if known is not None:
            return known
        if grid not in self._places:
            self._places[grid] = token_places(self._canonical, self._frame, grid)
        places = self._places[grid]
        result = nearest_places(places.position[view], places.position[key], _FOOTPRINT * places.spacing[key])
        self._pairs[view, key, grid] = result
        return result


def nearest_places(
    wanted: Float[np.ndarray, "tokens 3"],
    offered: Float[np.ndarray, "key_tokens 3"],
    tolerance: Float[np.ndarray, " key_tokens"],
) -> Int64[np.ndarray, " tokens"]:
    """The nearest of the offered places for every wanted one, -1 where none is within its tolerance.

    Args:
        wanted, offered: positions, metres; NaN for none.
        tolerance: how far each offered place reaches, metres.
    """
    result = np.full(len(wanted), -1, np.int64)
    ask = np.flatnonzero(np.isfinite(wanted).all(axis=1))
    have = np.flatnonzero(np.isfinite(offered).all(axis=1) & np.isfinite(tolerance))
    if not ask.size or not have.size:
        return result
    distance, found = cKDTree(offered[have]).query(wanted[ask])
    near = distance <= tolerance[have[found]]
    result[ask[near]] = have[found[near]]
    return result
