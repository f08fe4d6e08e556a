"""The surface of a head at rest, over which colours of faces are completed where they are not known.

What the mirrored face shows is taken first (x to -x: heads at rest are symmetric). What neither side shows, such as the back of a
head, is filled in over the surface: harmonically, so that it goes on smoothly from what surrounds it; and within the hair towards
the colour that hair has where it was seen, because the few pixels at its border with the skin know least about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

_HAIR_REACH = 0.02
"""Metres from a known face after which hair has its usual colour."""


@dataclass(frozen=True)
class RestSurface:
    """A head model's mesh at rest."""

    vertices: Float[np.ndarray, "vertices 3"]
    """Metres; symmetric in x, as all head models are."""
    faces: Int[np.ndarray, "faces 3"]
    hair: Bool[np.ndarray, " faces"]
    """Faces that hair covers; none where the head model does not say."""

    def completed(
        self, colors: Float[np.ndarray, "faces 3"], known: Bool[np.ndarray, " faces"]
    ) -> Float[np.ndarray, "faces 3"]:
        """Colours of all faces; those that are `known` are as they were."""
        mirrored = ~known & known[self.mirror]
        result = np.where(known[:, None], colors, colors[self.mirror])
        known = known | mirrored
        for part, reach in ((self.hair, _HAIR_REACH), (~self.hair, np.inf)):
            if (part & known).any() and (part & ~known).any():
                here = np.flatnonzero(part)
                result[here] = self._spread(result[here], known[here], here, reach)
                known = known | part
        rest = ~known
        if rest.any():
            _, nearest = cKDTree(self.middles[known]).query(self.middles[rest])
            result[rest] = result[known][nearest]
        return result

    @cached_property
    def middles(self) -> Float[np.ndarray, "faces 3"]:
        """Of the faces."""
        return self.vertices[self.faces].mean(axis=1)

    @cached_property
    def mirror(self) -> Int[np.ndarray, " faces"]:
        """The face whose middle is nearest to the mirror image of each face's."""
        return cKDTree(self.middles).query(self.middles * [-1.0, 1.0, 1.0])[1]

    @cached_property
    def _neighbours(self) -> sparse.csr_matrix:
        """Symmetric weights of faces that share an edge: the reciprocal of the squared distance of their middles."""
        edges = np.sort(
            np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [0, 2]]]), axis=1
        )
        owner = np.tile(np.arange(len(self.faces)), 3)
        order = np.lexsort((edges[:, 1], edges[:, 0]))
        edges, owner = edges[order], owner[order]
        shared = (edges[1:] == edges[:-1]).all(1)
        a, b = owner[:-1][shared], owner[1:][shared]
        weight = 1 / np.square(np.linalg.norm(self.middles[a] - self.middles[b], axis=1)).clip(1e-8)
        size = len(self.faces)
        half = sparse.coo_matrix((weight, (a, b)), shape=(size, size))
        return (half + half.T).tocsr()

    def _spread(
        self,
        colors: Float[np.ndarray, "some 3"],
        known: Bool[np.ndarray, " some"],
        part: Int[np.ndarray, " some"],
        reach: float,
    ) -> Float[np.ndarray, "some 3"]:
        """Solves (reach^2 L + 1) x = usual colour, with L the Laplacian on the faces of a part and x given where known.

        What is not connected with anything known takes the usual colour.
        """
        weights = self._neighbours[part][:, part]
        _, piece = csgraph.connected_components(weights, directed=False)
        reached = np.isin(piece, piece[known])
        usual = np.median(colors[known], axis=0)
        result = np.where(known[:, None], colors, usual)
        free = reached & ~known
        if not free.any():
            return result
        laplacian = sparse.diags(np.asarray(weights.sum(1)).ravel()) - weights
        pull = 0.0 if np.isinf(reach) else reach**-2
        matrix = laplacian[free][:, free] + pull * sparse.identity(int(free.sum()))
        sides = pull * usual - laplacian[free][:, known] @ colors[known]
        result[free] = spsolve(matrix.tocsc(), sides).reshape(-1, 3)
        return result
