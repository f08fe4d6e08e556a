"""Arrays of numbers out of files: checked in float32, the precision that they are used in."""

from __future__ import annotations

import numpy as np


def as_float32(array: np.ndarray) -> np.ndarray:
    """The array in float32; numbers beyond its range (3.4e38) become infinite, without a warning."""
    with np.errstate(over="ignore"):
        return np.asarray(array).astype(np.float32)


def finite_float32(array: np.ndarray) -> np.ndarray | None:
    """The array in float32, or None if it holds anything but numbers that are finite there."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        return None
    values = as_float32(array)
    return values if np.isfinite(values).all() else None
