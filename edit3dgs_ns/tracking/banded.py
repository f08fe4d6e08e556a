"""Normal equations of a sequence: one block per frame, neighbours coupled, a few unknowns shared by all frames.

    [ A_0  -s            C_0 ] [x_0]   [b_0]
    [ -s   A_1  -s       C_1 ] [x_1] = [b_1]
    [      -s   A_2 ...  C_2 ] [x_2]   [b_2]
    [ C_0' C_1' C_2 ...  H   ] [ y ]   [ h ]

Frames are eliminated by a banded Cholesky factorisation, and the shared unknowns by the Schur complement: the cost grows linearly
with the number of frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cho_factor, cho_solve, cho_solve_banded, cholesky_banded
from torch import Tensor


@dataclass(frozen=True)
class ChunkTerms:
    """What the errors of a few frames add to the normal equations."""

    rows: Int[np.ndarray, " t"]
    """The frames."""
    blocks: Float[np.ndarray, "t D D"]
    border: Float[np.ndarray, "t D Q"]
    shared: Float[np.ndarray, "Q Q"]
    right_frames: Float[np.ndarray, "t D"]
    right_shared: Float[np.ndarray, " Q"]
    cost: float

    @classmethod
    def of(
        cls,
        rows: Int[Tensor, " t"],
        residual: Float[Tensor, "t N"],
        by_frame: Float[Tensor, "t N D"],
        by_shared: Float[Tensor, "t N Q"],
    ) -> ChunkTerms:
        """From weighted errors and their derivatives."""
        transposed, flat = by_frame.transpose(1, 2), by_shared.flatten(0, 1)
        return cls(
            rows.numpy(),
            (transposed @ by_frame).numpy(),
            (transposed @ by_shared).numpy(),
            (flat.T @ flat).numpy(),
            -(transposed @ residual[..., None])[..., 0].numpy(),
            -(flat.T @ residual.flatten()).numpy(),
            float((residual**2).sum()),
        )

    def add_to(self, system: SequenceSystem) -> float:
        """Add them; returns the errors' sum of squares."""
        system.blocks[self.rows] += self.blocks
        system.border[self.rows] += self.border
        system.shared += self.shared
        system.right_frames[self.rows] += self.right_frames
        system.right_shared += self.right_shared
        return self.cost


@dataclass
class SequenceSystem:
    """The left and right sides; every matrix is symmetric and complete."""

    blocks: Float[np.ndarray, "T D D"]
    coupling: Float[np.ndarray, "T-1 D"]
    """Diagonal of the block between frames t and t + 1, negative for a smoothness term."""
    border: Float[np.ndarray, "T D Q"]
    shared: Float[np.ndarray, "Q Q"]
    right_frames: Float[np.ndarray, "T D"]
    right_shared: Float[np.ndarray, " Q"]

    @classmethod
    def zeros(cls, frames: int, width: int, shared: int) -> SequenceSystem:
        """A system of T frames with D unknowns each, and Q shared ones."""
        return cls(
            np.zeros((frames, width, width)),
            np.zeros((max(frames - 1, 0), width)),
            np.zeros((frames, width, shared)),
            np.zeros((shared, shared)),
            np.zeros((frames, width)),
            np.zeros(shared),
        )

    def add_smoothness(
        self,
        stiffness: Float[np.ndarray, " D"] | Float[np.ndarray, "T-1 D"],
        values: Float[np.ndarray, "T D"],
    ) -> float:
        """Add springs between the values of neighbouring frames; returns their sum of squares now.

        Args:
            stiffness: of all springs, or of each.
            values: of the frames now.
        """
        change = np.diff(values, axis=0)
        index = np.arange(values.shape[1])
        self.blocks[1:, index, index] += stiffness
        self.blocks[:-1, index, index] += stiffness
        self.coupling -= stiffness
        self.right_frames[1:] -= stiffness * change
        self.right_frames[:-1] += stiffness * change
        return float((stiffness * change**2).sum())

    def solve(self, damping: float = 0.0) -> tuple[Float[np.ndarray, "T D"], Float[np.ndarray, " Q"]]:
        """Return the unknowns of the frames and the shared ones.

        Args:
            damping: share of the diagonal that is added to it (Levenberg-Marquardt).

        Raises:
            numpy.linalg.LinAlgError: the system is not positive definite.
        """
        frames, width = self.right_frames.shape
        factor = cholesky_banded(self._upper_band(damping), overwrite_ab=True, check_finite=False)
        sides = np.concatenate([self.right_frames[..., None], self.border], axis=2).reshape(
            frames * width, -1
        )
        solved = cho_solve_banded((factor, False), sides, check_finite=False)
        border = self.border.reshape(frames * width, -1)
        schur = self.shared + damping * np.diag(np.diag(self.shared)) - border.T @ solved[:, 1:]
        shared = cho_solve(cho_factor(schur), self.right_shared - border.T @ solved[:, 0])
        return (solved[:, 0] - solved[:, 1:] @ shared).reshape(frames, width), shared

    def _upper_band(self, damping: float) -> Float[np.ndarray, "D+1 TD"]:
        """scipy's storage: row D - k holds the k-th diagonal above the main one, right-aligned."""
        frames, width = self.right_frames.shape
        band = np.zeros((width + 1, frames, width))
        for k in range(width):
            band[width - k, :, k:] = np.diagonal(self.blocks, offset=k, axis1=1, axis2=2)
        band[width] *= 1 + damping
        if frames > 1:
            band[0, 1:] = self.coupling
        return band.reshape(width + 1, frames * width)
