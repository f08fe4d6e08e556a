"""Similarity transforms: turning, scaling and moving a scene as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from edit3dgs_ns.errors import UserError

_ROUNDED = 1e-3
"""Matrices may be rounded to about three digits; larger deviations are no similarity."""


@dataclass(frozen=True)
class Similarity:
    """new_from_old: x -> scale * rotation @ x + translation, in float64."""

    scale: float = 1.0
    rotation: Float[np.ndarray, "3 3"] = field(default_factory=lambda: np.eye(3))
    translation: Float[np.ndarray, " 3"] = field(default_factory=lambda: np.zeros(3))

    @classmethod
    def from_parts(
        cls,
        translation: Sequence[float] = (0.0, 0.0, 0.0),
        degrees: Sequence[float] = (0.0, 0.0, 0.0),
        scale: float = 1.0,
    ) -> Similarity:
        """Scale, then turn about the x, then the y, then the z axis (fixed axes, degrees), then move.

        Raises:
            ValueError: numbers that are not finite, or a scale that is not positive; the message has no subject.
        """
        values = np.array([*translation, *degrees, scale], dtype=np.float64)
        if len(values) != 7 or not np.isfinite(values).all() or not scale > 0:
            raise UserError(
                f"translation {list(translation)}, rotation {list(degrees)}, scale {scale}: expected three finite numbers each, "
                "and a scale above 0."
            )
        return cls(
            float(scale), Rotation.from_euler("xyz", values[3:6], degrees=True).as_matrix(), values[:3]
        )

    @classmethod
    def from_matrix(cls, matrix: Float[np.ndarray, "4 4"]) -> Similarity:
        """Of a homogeneous matrix; rounding is taken out of its rotation.

        Raises:
            ValueError: it is none of a similarity; the message has no subject.
        """
        matrix = np.asarray(matrix, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise UserError(f"has shape {matrix.shape}; expected 4 x 4 finite numbers.")
        if not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6):
            raise UserError(f"its last row is {matrix[3].tolist()}; expected 0, 0, 0, 1.")
        linear = matrix[:3, :3]
        left, sizes, right = np.linalg.svd(linear)
        if not sizes[0] > 0 or sizes[0] - sizes[2] > _ROUNDED * sizes[0]:
            raise UserError(
                f"it stretches by {', '.join(f'{size:.4g}' for size in sizes)} along three axes. Expected a similarity: one scale "
                "for all directions, no shear."
            )
        if np.linalg.det(linear) < 0:
            raise UserError("it mirrors the scene (negative determinant); expected a rotation.")
        return cls(float(sizes.mean()), left @ right, matrix[:3, 3].copy())

    @property
    def matrix(self) -> Float[np.ndarray, "4 4"]:
        """Homogeneous."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.scale * self.rotation, self.translation
        return matrix

    @property
    def degrees(self) -> tuple[float, float, float]:
        """Angles about x, y and z as `from_parts` takes them, without the noise of the last digits."""
        x, y, z = Rotation.from_matrix(self.rotation).as_euler("xyz", degrees=True).round(9)
        return float(x), float(y), float(z)

    def __matmul__(self, other: Similarity) -> Similarity:
        """First `other`, then this."""
        moved = self.scale * self.rotation @ other.translation + self.translation
        return Similarity(self.scale * other.scale, self.rotation @ other.rotation, moved)

    def inverse(self) -> Similarity:
        """old_from_new."""
        back = self.rotation.T
        return Similarity(1 / self.scale, back, -back @ self.translation / self.scale)
