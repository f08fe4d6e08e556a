"""Matches along epipolar lines by the similarity of features (DGE, Chen et al., ECCV 2024, section 3.3).

What a pixel of one camera shows lies, in the image of another camera at the same timestep, on a line (Hartley and
    Zisserman, Multiple View Geometry, chapter 9). Along it the most similar feature is the match. The head moves between
    timesteps, so that for views of two timesteps the line says nothing: all tokens are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from edit3dgs_ns.editing.agreement.correspondence import (
    ANCHOR_WEIGHT,
    LatentMatches,
    LayerFeatures,
    TokenMatches,
    blended,
    nearest_keys,
)
from edit3dgs_ns.editing.agreement.token_grid import token_centres, tokens_from_pixels
from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.framing import Frame
from edit3dgs_ns.errors import UserError

_BAND = 1.0
"""How far from the line, in tokens, a match may lie."""
_CHUNK = 1 << 21
"""Similarities held at once; the whole matrix of two views at 64 x 64 tokens would be eight times this."""
_SAME_PLACE = 1e-5
"""Cameras nearer than this (metres) share their centre: there is no line then, but a point."""
_RETURNS_WITHIN = 1.5
"""Key views agree on a match that, followed back, ends within this many tokens (each way) of where it began."""
_LEAD = 4.0
"""Among key views each counts this many times as much as the next: a plain mean of unlike appearances would be grey."""


class EpipolarCorrespondence:
    """A `Correspondence` by features, restricted to epipolar lines.

    Raises:
        ValueError: the request has no cameras.
    """

    needs_features = True

    def __init__(self, request: EditRequest, frame: Frame, device: torch.device):
        if request.c2w is None or request.K is None:
            raise UserError("Epipolar correspondence needs c2w and K of every view in the request.")
        self._request, self._frame, self._device = request, frame, device

    def match(
        self,
        views: Sequence[int],
        keys: Sequence[int],
        grid: tuple[int, int],
        queries: Float[Tensor, "views tokens channels"] | None,
        key_queries: Float[Tensor, "keys tokens channels"] | None,
    ) -> TokenMatches:
        """See `Correspondence.match`."""
        if queries is None or key_queries is None:
            raise UserError("Epipolar correspondence needs the features of the views and of the key views.")
        nearest = nearest_keys(self._request, views, keys)
        index = torch.empty(len(views), 2, queries.shape[1], dtype=torch.int64)
        for row, view in enumerate(views):
            features = F.normalize(queries[row], dim=-1)
            for column, place in enumerate(nearest.place[row].tolist()):
                if column == 1 and place == int(nearest.place[row, 0]):
                    index[row, 1] = index[row, 0]
                    continue
                band = self._band(view, keys[place], grid)
                index[row, column] = _best(features, F.normalize(key_queries[place], dim=-1), band).cpu()
        return blended(index, nearest, self._device)

    def match_latents(
        self,
        views: Sequence[int],
        keys: Sequence[int],
        size: tuple[int, int],
        layer: LayerFeatures | None = None,
    ) -> Iterator[LatentMatches]:
        """See `Correspondence.match_latents`.

        Key views are matched with each other at the layer's tokens; the most central one counts most, for all of them. The others
        take what they were matched with for the attention.
        """
        if layer is None:
            raise UserError("Epipolar correspondence needs the features of the key views.")
        if any(view in keys for view in views):
            yield from self._among_keys(keys, size, layer)
            return
        for view in views:
            found = layer.matches[view]
            place = torch.tensor(keys, device=found.keys.device)[found.keys[0]]
            index = found.index[0] + place[:, None] * (layer.grid[0] * layer.grid[1])
            yield _latent_matches(index.T, found.weight[0].T, layer.grid, size)

    def _among_keys(
        self, keys: Sequence[int], size: tuple[int, int], layer: LayerFeatures
    ) -> Iterator[LatentMatches]:
        """Of the key views, in their order."""
        tokens = layer.grid[0] * layer.grid[1]
        features = F.normalize(layer.key_queries, dim=-1)
        found = {
            (a, b): _best(features[a], features[b], self._band(keys[a], keys[b], layer.grid))
            for a in range(len(keys))
            for b in range(len(keys))
            if a != b
        }
        own, lead = torch.arange(tokens, device=features.device), self._lead(keys)
        for a in range(len(keys)):
            index, weight = own.repeat(len(keys), 1), torch.zeros(len(keys), tokens, device=features.device)
            weight[a] = lead[a]
            for b in range(len(keys)):
                if b != a:
                    index[b] = found[a, b].clamp(min=0)
                    back = found[b, a][index[b]]
                    returns = (found[a, b] >= 0) & _are_near(back, own, layer.grid, _RETURNS_WITHIN)
                    weight[b] = lead[b] * returns
            place = torch.tensor(keys, device=index.device)[:, None] * tokens
            yield _latent_matches((index + place).T, (weight / weight.sum(dim=0)).T, layer.grid, size)

    def _lead(self, keys: Sequence[int]) -> list[float]:
        """How much each key view counts: the one nearest to the middle of their cameras most, whatever their order; anchors
        before all others."""
        assert self._request.c2w is not None
        centres = self._request.c2w[list(keys), :3, 3].astype(np.float64)
        away = np.linalg.norm(centres - centres.mean(axis=0), axis=1).round(6)
        rank = np.empty(len(keys), int)
        times = np.asarray(self._request.timesteps)[list(keys)]
        rank[np.lexsort((*centres.T, times, away))] = np.arange(len(keys))
        weight = _LEAD**-rank
        weight[[key in self._request.anchors for key in keys]] *= ANCHOR_WEIGHT
        return weight.tolist()

    def _band(self, view: int, key: int, grid: tuple[int, int]) -> _Band | None:
        """Where tokens of a view may lie in a key view; None: anywhere."""
        if self._request.timesteps[view] != self._request.timesteps[key]:
            return None
        assert self._request.c2w is not None and self._request.K is not None
        carry = tokens_from_pixels(self._frame, grid)
        K = [carry @ self._request.K[v].astype(np.float64) for v in (view, key)]
        c2w = [self._request.c2w[v].astype(np.float64) for v in (view, key)]
        centres = _homogeneous(token_centres(grid))
        matrix, is_line = two_view_geometry(K[0], c2w[0], K[1], c2w[1])
        return _Band(centres @ matrix.T, centres, is_line, self._device)


def two_view_geometry(
    K: Float[np.ndarray, "3 3"],
    c2w: Float[np.ndarray, "4 4"],
    key_K: Float[np.ndarray, "3 3"],
    key_c2w: Float[np.ndarray, "4 4"],
) -> tuple[Float[np.ndarray, "3 3"], bool]:
    """The fundamental matrix, or for cameras with one centre the homography, from a view to a key view.

    Hartley and Zisserman, eq. 9.2: F = K'^-T [t]x R K^-1; 13.2 with t = 0: H = K' R K^-1.

    Args:
        K, key_K: intrinsics.
        c2w, key_c2w: camera-to-world, OpenGL axes.

    Returns:
        The matrix, and whether it is a fundamental one.
    """
    axes = np.diag([1.0, -1.0, -1.0])  # OpenGL to OpenCV
    world_from_view, world_from_key = c2w[:3, :3] @ axes, key_c2w[:3, :3] @ axes
    R = world_from_key.T @ world_from_view
    baseline = c2w[:3, 3] - key_c2w[:3, 3]
    if np.linalg.norm(baseline) < _SAME_PLACE:
        return key_K @ R @ np.linalg.inv(K), False
    x, y, z = world_from_key.T @ baseline
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.linalg.inv(key_K).T @ cross @ R @ np.linalg.inv(K), True


class _Band:
    """For every token of a view: the tokens of a key view that lie near its epipolar line, or its point."""

    def __init__(
        self,
        mapped: Float[np.ndarray, "tokens 3"],
        centres: Float[np.ndarray, "tokens 3"],
        is_line: bool,
        device: torch.device,
    ):
        scale = np.linalg.norm(mapped[:, :2], axis=1, keepdims=True) if is_line else mapped[:, 2:]
        self._is_line = is_line
        self._mapped = torch.from_numpy((mapped / scale).astype(np.float32)).to(device)
        self._centres = torch.from_numpy(centres.astype(np.float32)).to(device)

    def allows(self, rows: slice) -> Bool[Tensor, "rows tokens"]:
        """Which tokens are near enough, for some tokens of the view."""
        if self._is_line:
            return (self._mapped[rows] @ self._centres.T).abs() <= _BAND
        return torch.cdist(self._mapped[rows, :2], self._centres[:, :2]) <= _BAND


def _best(
    features: Float[Tensor, "tokens channels"],
    key_features: Float[Tensor, "key_tokens channels"],
    band: _Band | None,
) -> Int64[Tensor, " tokens"]:
    """The most similar key token of every token; -1 where the band is outside of the key view."""
    rows = max(1, _CHUNK // len(key_features))
    result = torch.empty(len(features), dtype=torch.int64, device=features.device)
    for start in range(0, len(features), rows):
        part = slice(start, start + rows)
        similarity = features[part] @ key_features.T
        if band is not None:
            similarity = similarity.masked_fill_(~band.allows(part), -torch.inf)
        value, index = similarity.max(dim=1)
        result[part] = torch.where(value > -torch.inf, index, -1)
    return result


def _are_near(
    one: Int64[Tensor, " n"], other: Int64[Tensor, " n"], grid: tuple[int, int], within: float
) -> Bool[Tensor, " n"]:
    """Which tokens are both there and lie within a distance of each other, in rows and in columns."""
    rows = (one // grid[1] - other // grid[1]).abs()
    columns = (one % grid[1] - other % grid[1]).abs()
    return (one >= 0) & (rows <= within) & (columns <= within)


def _latent_matches(
    index: Int64[Tensor, "tokens taken"],
    weight: Float[Tensor, "tokens taken"],
    grid: tuple[int, int],
    size: tuple[int, int],
) -> LatentMatches:
    """Carry what tokens take to the latents' positions: those within a token take those within the matched one."""
    rows, columns = size[0] // grid[0], size[1] // grid[1]
    y, x = torch.meshgrid(
        torch.arange(size[0], device=index.device), torch.arange(size[1], device=index.device), indexing="ij"
    )
    token = (y // rows * grid[1] + x // columns).flatten()
    inside = (y % rows * size[1] + x % columns).flatten()
    key, taken = index[token] // (grid[0] * grid[1]), index[token] % (grid[0] * grid[1])
    place = taken // grid[1] * rows * size[1] + taken % grid[1] * columns
    weight = weight[token]
    return LatentMatches(
        (key * size[0] * size[1] + place + inside[:, None]) * (weight > 0),
        weight,
        weight.sum(dim=1).clamp(max=1),
    )


def _homogeneous(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)
