"""Correspondence between views: which token of which key view shows the same surface point.

Key views are edited together; every other view takes over, token by token, what its two nearest key views computed at the same
    surface point (DGE, Chen et al., ECCV 2024, section 3.3). Three ways to find it:

    epipolar    the most similar features along the epipolar line (DGE); cameras of one timestep
    rig         the nearest place on the canonical head; any cameras, any timesteps
    none        not at all: each view is edited by itself
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.errors import UserError

CorrespondenceKind = Literal["epipolar", "rig", "none"]


ANCHOR_WEIGHT = 1e3
"""How much more an anchor counts than another key view where both show a surface point: its appearance is settled."""


@dataclass(frozen=True)
class TokenMatches:
    """Where the tokens of some views are found in their two nearest key views, nearest first."""

    index: Int64[Tensor, "views two tokens"]
    """Token of the key view; -1 where it does not show the surface point."""
    weight: Float[Tensor, "views two tokens"]
    """Share of each key view in the blend; 0 where `index` is -1; the two sum to 1 where there is any match, else to 0."""
    keys: Int64[Tensor, "views two"]
    """The two key views, as positions among the key views. Of a single key view the second place repeats it with weight 0."""


@dataclass(frozen=True)
class LayerFeatures:
    """Key views' features and the others' matches at one attention layer of a step."""

    grid: tuple[int, int]
    """Rows and columns of its tokens."""
    key_queries: Float[Tensor, "keys tokens channels"]
    """The layer's inputs of the key views."""
    matches: Mapping[int, TokenMatches]
    """Of every other view, by its position in the request, what was found: its row alone."""


@dataclass(frozen=True)
class LatentMatches:
    """For every latent position of a view: the positions of all views whose weighted mean it takes, and how far."""

    index: Int64[Tensor, "positions taken"]
    """Positions of all views of the request, those of the first before those of the second, and so on."""
    weight: Float[Tensor, "positions taken"]
    """Their shares, which sum to 1; to 0 where nothing is taken."""
    trust: Float[Tensor, " positions"]
    """How far the common value replaces the view's own, from 0 (not at all) to 1."""


class Correspondence(Protocol):
    """Finds surface points of views in key views: tokens of attention layers, and positions of latents."""

    needs_features: bool
    """`match` needs `queries` and `key_queries`."""

    def match(
        self,
        views: Sequence[int],
        keys: Sequence[int],
        grid: tuple[int, int],
        queries: Float[Tensor, "views tokens channels"] | None,
        key_queries: Float[Tensor, "keys tokens channels"] | None,
    ) -> TokenMatches:
        """Find the tokens of views in their two nearest key views.

        Args:
            views: positions in the request of the views whose tokens are looked for.
            keys: positions in the request of the key views.
            grid: rows and columns of the layer's tokens.
            queries: the layer's inputs of the views, in the order of `views`.
            key_queries: the same of the key views, in the order of `keys`.

        Raises:
            ValueError: there is no key view, or features are needed and missing.
        """
        ...

    def match_latents(
        self, views: Sequence[int], keys: Sequence[int], size: tuple[int, int], layer: LayerFeatures | None
    ) -> Iterator[LatentMatches]:
        """Find out, for each of some views, from where its latents take a common value.

        Args:
            views: positions in the request: the key views, which come to agree first, or some of the others.
            keys: positions in the request of the key views.
            size: rows and columns of the latents.
            layer: the finest attention layer of this step, where features are needed.
        """
        ...


@dataclass(frozen=True)
class NearestKeys:
    """The two nearest key views of some views."""

    place: Int64[Tensor, "views two"]
    """Positions among the key views, nearest first; the same twice if there is but one."""
    distance: Float[Tensor, "views two"]
    """Metres between the cameras."""


def nearest_keys(request: EditRequest, views: Sequence[int], keys: Sequence[int]) -> NearestKeys:
    """The two key views whose cameras are nearest; of equally near ones those nearer in time, then those named first.

    Raises:
        ValueError: there is no key view.
    """
    if not keys:
        raise UserError("Matching needs at least one key view.")
    assert request.c2w is not None
    centres, times = request.c2w[:, :3, 3], np.asarray(request.timesteps)
    place, distance = np.zeros((len(views), 2), np.int64), np.zeros((len(views), 2), np.float32)
    for row, view in enumerate(views):
        away = np.linalg.norm(centres[list(keys)] - centres[view], axis=1)
        apart = np.abs(times[list(keys)] - times[view])
        order = np.lexsort((np.arange(len(keys)), apart, away.round(6)))
        place[row] = order[[0, min(1, len(keys) - 1)]]
        distance[row] = away[place[row]]
    return NearestKeys(torch.from_numpy(place), torch.from_numpy(distance))


def blended(
    index: Int64[Tensor, "views two tokens"], nearest: NearestKeys, device: torch.device
) -> TokenMatches:
    """Weigh the matches in two key views by how near these are (DGE): w = (d2, d1) / (d1 + d2).

    Where only one of them shows the surface point it has all the weight.
    """
    index = index.clone()
    single = nearest.place[:, 0] == nearest.place[:, 1]
    total = nearest.distance.sum(dim=1, keepdim=True)
    share = torch.where(total > 1e-6, nearest.distance.flip(1) / total.clamp(min=1e-6), 0.5)
    share[single] = share.new_tensor([1.0, 0.0])
    # An equal camera at another timestep has the whole share; what it does not show is left to the other.
    weight = (share.clamp(min=1e-3)[:, :, None] * (index >= 0)).float()
    weight[single, 1] = 0.0
    weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return TokenMatches(index.to(device), weight.to(device), nearest.place.to(device))
