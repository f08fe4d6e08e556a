"""How far a driver's eyes and mouth are open, in the driver's own range."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class FaceOpenness:
    """Measured in images, apart from the expression that was fitted to them."""

    lids: Float[Tensor, "T 2"]
    """Left and right eye: 0 is the driver's closed eye, 1 the open one."""
    mouth: Float[Tensor, " T"]
    """Gap between the lips as a share of the distance between the outer corners of the eyes; 0 is the driver's closed mouth."""
