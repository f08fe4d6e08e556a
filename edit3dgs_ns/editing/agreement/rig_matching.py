"""Correspondence by the rest position on the canonical head, which the renderer knows for every pixel.

Two pixels of any two views, at any two timesteps, show the same surface point exactly when their rest positions on the
    canonical head agree. Unlike an epipolar line this is unique, holds across expressions, and knows what is hidden: a surface
    point that a key view does not show has no near place among its tokens, and so no match.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from scipy.spatial import cKDTree
from torch import Tensor

from edit3dgs_ns.editing.agreement.correspondence import (
    ANCHOR_WEIGHT,
    LatentMatches,
    LayerFeatures,
    TokenMatches,
    blended,
    nearest_keys,
)
from edit3dgs_ns.editing.agreement.surface_grid import SurfaceGrid, corners
from edit3dgs_ns.editing.agreement.token_grid import TokenPlaces, token_places
from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.framing import Frame
from edit3dgs_ns.errors import UserError

_FOOTPRINT = 0.75
"""A match lies at most this share of the key token's spacing away: of a regular grid no place is farther than 0.71. (On the demo's
avatar, at 64 x 64 tokens, 0.98 of the visible tokens are matched, and 0.08 of those that are hidden.)"""
_SHARPNESS = 4.0
"""A surface point's common value is weighed by how finely each view sees it, to this power. A plain mean (0) of unlike
appearances is grey; the highest powers leave a point to one view."""
_COMMON_AREA = 2.5e-5
"""Square metres of a latent's pixel on the head, roughly: keeps powers of densities near 1."""


class RigCorrespondence:
    """A `Correspondence` by canonical positions; matches are found once and kept, for they do not depend on features.

    Raises:
        ValueError: the request has no canonical maps or no cameras.
    """

    needs_features = False

    def __init__(self, request: EditRequest, frame: Frame, device: torch.device):
        if request.canonical is None or request.c2w is None:
            raise UserError("Rig correspondence needs canonical maps and c2w of every view in the request.")
        self._request, self._frame, self._device = request, frame, device
        self._canonical = request.canonical
        self._places: dict[tuple[int, int], TokenPlaces] = {}
        self._pairs: dict[tuple[int, int, tuple[int, int]], Int64[np.ndarray, " tokens"]] = {}
        self._grids: dict[tuple[int, tuple[int, int]], SurfaceGrid] = {}
        self._seen: dict[tuple[int, int, tuple[int, int]], _Seen] = {}

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

    def match_latents(
        self,
        views: Sequence[int],
        keys: Sequence[int],
        size: tuple[int, int],
        layer: LayerFeatures | None = None,
    ) -> Iterator[LatentMatches]:
        """See `Correspondence.match_latents`; features are not looked at.

        The value of a surface point is the same whichever view asks for it: c times the mean of what the key views have there,
        and 1 - c times the mean of what all views have, each weighed by how finely it sees the point, and anchors before all
        others. c says how plainly any key view shows it: 1, falling to 0 where the key views end, so that no seam appears.
        Towards the edges of its own surface, where its latents mix two, a view goes back to its own value.
        """
        everyone = range(len(self._canonical))
        is_key = np.isin(everyone, keys)
        counts = np.where(np.isin(everyone, self._request.anchors), ANCHOR_WEIGHT, 1.0)[:, None]
        for view in views:
            seen = [self._seen_in(view, other, size) for other in everyone]
            weight, solid = counts * np.stack([s.weight for s in seen]), np.stack([s.solid for s in seen])
            led = solid[is_key].max(axis=0)
            part = led * _normalised(weight * is_key[:, None]) + (1 - led) * _normalised(weight)
            used = np.flatnonzero(part.any(axis=1))
            index = [seen[other].index + other * (size[0] * size[1]) for other in used]
            share = [seen[other].share * part[other][:, None] for other in used]
            yield LatentMatches(
                torch.from_numpy(np.concatenate(index, axis=1).astype(np.int64)).to(self._device),
                torch.from_numpy(np.concatenate(share, axis=1)).to(self._device, torch.float32),
                torch.from_numpy(self._surface(view, size).solid.reshape(-1)).to(self._device, torch.float32),
            )

    def _seen_in(self, view: int, other: int, size: tuple[int, int]) -> _Seen:
        """What a view shows of another view's positions; found once."""
        known = self._seen.get((view, other, size))
        if known is None:
            known = self._seen[view, other, size] = _seen(
                self._surface(view, size),
                self._surface(other, size),
                self._pair(view, other, size),
                view == other,
            )
        return known

    def _surface(self, view: int, size: tuple[int, int]) -> SurfaceGrid:
        """A view's latents as a grid on the surface."""
        if (view, size) not in self._grids:
            places = self._token_places(size)
            self._grids[view, size] = SurfaceGrid(
                places.position[view].reshape(*size, 3), places.spacing[view].reshape(size)
            )
        return self._grids[view, size]

    def _token_places(self, grid: tuple[int, int]) -> TokenPlaces:
        if grid not in self._places:
            self._places[grid] = token_places(self._canonical, self._frame, grid)
        return self._places[grid]

    def _pair(self, view: int, key: int, grid: tuple[int, int]) -> Int64[np.ndarray, " tokens"]:
        """The token of a key view for every token of a view, -1 without a match."""
        known = self._pairs.get((view, key, grid))
        if known is not None:
            return known
        places = self._token_places(grid)
        result = nearest_places(places.position[view], places.position[key], _FOOTPRINT * places.spacing[key])
        self._pairs[view, key, grid] = result
        return result


@dataclass(frozen=True)
class _Seen:
    """What one view shows of the positions of another."""

    index: Int32[np.ndarray, "positions 4"]
    share: Float[np.ndarray, "positions 4"]
    """Cells of the one and their weights in what it has there; all 0 where it does not show the surface point."""
    weight: Float[np.ndarray, " positions"]
    """How much it counts; a property of the surface point, the same for every view."""
    solid: Float[np.ndarray, " positions"]
    """How plainly it shows the surface point, from 0 at an edge to 1."""


def _normalised(weight: Float[np.ndarray, "views positions"]) -> Float[np.ndarray, "views positions"]:
    """Shares that sum to 1, or to 0 where there are none."""
    total = weight.sum(axis=0)
    return weight / np.where(total > 0, total, 1.0)


def _seen(
    view: SurfaceGrid, other: SurfaceGrid, nearest: Int64[np.ndarray, " positions"], is_same: bool
) -> _Seen:
    positions = len(nearest)
    index, share = np.zeros((positions, 4), np.int32), np.zeros((positions, 4), np.float32)
    if is_same:
        index[:], share[:, 0] = np.arange(positions)[:, None], np.isfinite(view.spacing).reshape(-1)
    else:
        found = np.flatnonzero(nearest >= 0)
        between = corners(other, view.position.reshape(-1, 3)[found], nearest[found])
        index[found], share[found] = between.index, between.share
    solid, density = (
        (share * value.reshape(-1)[index]).sum(axis=1) for value in (other.solid, other.density)
    )
    return _Seen(index, share, solid * (density * _COMMON_AREA) ** _SHARPNESS, solid)


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
