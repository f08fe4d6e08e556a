"""Matches along epipolar lines by the similarity of features (DGE, Chen et al., ECCV 2024, section 3.3).

What a pixel of one camera shows lies, in the picture that another camera takes at the same moment, on a line (Hartley and
    Zisserman, Multiple View Geometry, chapter 9). Along it the most similar feature is the match. The head moves between
    timesteps, so that for views of two timesteps the line says nothing: all tokens are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from edit3dgs_ns.editing.correspondence import TokenMatches, blended, nearest_keys
from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.framing import Frame
from edit3dgs_ns.editing.token_grid import token_centres, tokens_from_pixels

_BAND = 1.0
"""How far from the line, in tokens, a match may lie."""
_CHUNK = 1 << 21
"""Similarities held at once; the whole matrix of two views at 64 x 64 tokens would be eight times this."""
_SAME_PLACE = 1e-5
"""Cameras nearer than this (metres) share their centre: there is no line then, but a point."""


class EpipolarCorrespondence:
    """A `Correspondence` by features, restricted to epipolar lines.

    Raises:
        ValueError: the request has no cameras.
    """

    needs_features = True

    def __init__(self, request: EditRequest, frame: Frame, device: torch.device):
        if request.c2w is None or request.K is None:
            raise ValueError("Epipolar correspondence needs c2w and K of every view in the request.")
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
            raise ValueError("Epipolar correspondence needs the features of the views and of the key views.")
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


def _homogeneous(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)
