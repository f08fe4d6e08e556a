"""Value noise in three dimensions: the only texture source of the synthetic capture.

Deterministic (an integer hash, no tables, no random state), evaluated where the surface was at rest, so
every freckle and strand sticks to the moving head. Octaves finer than the pixel footprint fade out, which
keeps the images free of sparkle at any resolution.
"""

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Float


@numba.njit(inline="always", cache=True, nogil=True)
def _hash(x: int, y: int, z: int, seed: int) -> float:
    """A lattice point's value in [0, 1)."""
    h = (x * 374761393 + y * 668265263 + z * 1440662683 + seed * 1013904223) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 1103515245) & 0xFFFFFFFF
    return (h ^ (h >> 16)) / 4294967296.0


@numba.njit(inline="always", cache=True, nogil=True)
def _fade(t: float) -> float:
    """Perlin's quintic: second derivative zero at both ends."""
    return t * t * t * (t * (t * 6.0 - 15.0) + 10.0)


@numba.njit(cache=True, nogil=True)
def _value(x: float, y: float, z: float, seed: int) -> float:
    """Value noise in [-1, 1] on the unit lattice."""
    ix, iy, iz = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    u, v, w = _fade(x - ix), _fade(y - iy), _fade(z - iz)
    total = 0.0
    for k in range(8):
        a, b, c = k & 1, (k >> 1) & 1, k >> 2
        weight = (u if a else 1.0 - u) * (v if b else 1.0 - v) * (w if c else 1.0 - w)
        total += weight * _hash(ix + a, iy + b, iz + c, seed)
    return 2.0 * total - 1.0


@numba.njit(cache=True, nogil=True)
def _fbm(points, scale, octaves, seed, footprint, out):
    for i in range(points.shape[0]):
        amplitude, frequency, total = 1.0, 1.0, 0.0
        for octave in range(octaves):
            # An octave of wavelength L is kept where L > 3 footprints, gone where L < 1.5.
            keep = 1.0
            if footprint > 0.0:
                wavelength = 1.0 / (frequency * max(scale[0], scale[1], scale[2]))
                keep = min(max(wavelength / (1.5 * footprint) - 1.0, 0.0), 1.0)
            if keep > 0.0:
                total += (
                    keep
                    * amplitude
                    * _value(
                        points[i, 0] * scale[0] * frequency,
                        points[i, 1] * scale[1] * frequency,
                        points[i, 2] * scale[2] * frequency,
                        seed + octave,
                    )
                )
            amplitude *= 0.5
            frequency *= 2.03
        out[i] = total


def fbm(
    points: Float[np.ndarray, "n 3"],
    frequency: float | tuple[float, float, float],
    octaves: int = 1,
    seed: int = 0,
    footprint: float = 0.0,
) -> Float[np.ndarray, " n"]:
    """Sum of octaves of value noise (each half as strong and about twice as fine as the one before).

    Args:
        points: where, in metres (or any unit that `frequency` is the inverse of).
        frequency: lattice cells per unit of `points`, one figure or one for each axis.
        octaves: how many octaves.
        seed: another seed is another, independent field.
        footprint: size of a pixel on the surface in the units of `points`; 0 keeps every octave.

    Returns:
        Values in about [-1, 1] for one octave, up to [-2, 2] for many.
    """
    scale = np.broadcast_to(np.asarray(frequency, dtype=np.float64), (3,)).copy()
    out = np.empty(len(points), dtype=np.float32)
    _fbm(np.ascontiguousarray(points, dtype=np.float32), scale, octaves, seed, float(footprint), out)
    return out


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Hermite step from 0 at `low` to 1 at `high`; `low > high` gives the falling step."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
