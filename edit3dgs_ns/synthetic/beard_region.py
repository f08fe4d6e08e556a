"""Where a full beard grows, on the template: upper lip, cheeks, chin, jaw and upper neck, clear of the lips."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.synthetic.canonical import Landmarks, ear_weight, lip_distance
from edit3dgs_ns.synthetic.noise import fbm, smoothstep

_EDGE_X = np.array([0.0, 0.008, 0.014, 0.020, 0.027, 0.036, 0.048, 0.058, 0.064, 0.070, 0.080])
_EDGE_Y = np.array(
    [-0.0160, -0.0145, -0.0130, -0.0150, -0.0215, -0.0290, -0.0215, -0.006, 0.012, 0.034, 0.036]
)
"""The upper edge from the middle of the upper lip over the cheek to the sideburn, metres."""
_LIP_GAP = 0.0010
"""Bare skin around the red of the lips, metres."""


def beard_distance(points: Float[np.ndarray, "n 3"], landmarks: Landmarks) -> Float[np.ndarray, " n"]:
    """About the distance inside the beard's outline in metres, negative outside."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    below_edge = np.interp(x, _EDGE_X, _EDGE_Y) - y
    # On the neck the beard ends where throat and jaw meet.
    above_neck = y + 0.086 + 0.25 * np.clip(z, -0.02, 0.04)
    before_ear = z + 0.024
    off_lips = np.where(z > landmarks.mouth[2] - 0.03, -lip_distance(points, landmarks) - _LIP_GAP, 1.0)
    outward = landmarks.mouth[2] - 0.045 < z  # the inside of the lips is skin as well
    inside = np.minimum(np.minimum(0.8 * below_edge, above_neck), np.minimum(before_ear, off_lips))
    inside = np.where(outward | (x > 0.030) | (y < -0.055), inside, -1.0)
    return inside - 0.03 * ear_weight(points)


def beard_coverage(points: Float[np.ndarray, "n 3"], landmarks: Landmarks) -> Float[np.ndarray, " n"]:
    """How much of the skin the beard's roots cover, 0 to 1: an irregular outline some millimetres wide."""
    ragged = beard_distance(points, landmarks) + 0.0012 * fbm(points, 260.0, 2, seed=91)
    return smoothstep(-0.0004, 0.0036, ragged)
