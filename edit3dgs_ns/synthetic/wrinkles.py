"""Wrinkles as a height field over the template: forehead lines, frown lines, crow's feet, bags, nasolabial
folds.

Each crease is a curve in the frontal image of the template (x mirrored); its profile is a valley with a
soft bulge beside it. The height is in millimetres.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.synthetic.canonical import Landmarks
from edit3dgs_ns.synthetic.noise import fbm, smoothstep


def wrinkle_height(points: Float[np.ndarray, "n 3"], landmarks: Landmarks) -> Float[np.ndarray, " n"]:
    """Height of a fully wrinkled face over a smooth one, in millimetres; negative in creases."""
    front = smoothstep(landmarks.eye[2] - 0.055, landmarks.eye[2] - 0.025, points[:, 2])
    face = np.flatnonzero(front > 0)  # the rest is smooth, and most of what a camera beside the head sees
    height = np.zeros(len(points), np.float32)
    height[face] = front[face] * _height_in_front(points[face], landmarks)
    return height


def _height_in_front(points: np.ndarray, landmarks: Landmarks) -> np.ndarray:
    x, y = np.abs(points[:, 0]), points[:, 1] - landmarks.eye[1]
    bend = fbm(points, 45.0, 2, seed=301)
    height = (
        _forehead(x, y, bend)
        + _frown(x, y, bend)
        + _crows_feet(x, y, bend, landmarks)
        + _bags(x, y, landmarks)
        + 0.06 * fbm(points * [0.6, 1.5, 1.0], 260.0, 2, seed=305)
    )
    for line, width, depth in _folds(landmarks):
        add_crease(height, x, points[:, 1], smooth_curve(line), width, depth, bend)
    return height


def valley(distance: np.ndarray, width: float) -> np.ndarray:
    """-1 at the bottom of a crease, slightly positive beside it."""
    t = distance / width
    return -np.exp(-t * t) + 0.35 * np.exp(-(((np.abs(t) - 2.0) / 0.9) ** 2))


def _forehead(x: np.ndarray, y: np.ndarray, bend: np.ndarray) -> np.ndarray:
    total = np.zeros_like(x)
    for k, (level, reach, depth) in enumerate(
        ((0.033, 0.036, 0.8), (0.0415, 0.042, 1.0), (0.050, 0.038, 0.9), (0.0575, 0.028, 0.6))
    ):
        line = level + 0.0035 * np.cos(x / 0.016 + k) * 0.5 + 0.0022 * bend
        strength = smoothstep(reach, 0.55 * reach, x) * (0.75 + 0.35 * bend)
        total += 0.9 * depth * strength * valley(y - line, 0.0021)
    return total


def _frown(x: np.ndarray, y: np.ndarray, bend: np.ndarray) -> np.ndarray:
    window = smoothstep(0.006, 0.014, y) * smoothstep(0.034, 0.026, y)
    return 0.9 * window * valley(x - 0.0065 - 0.10 * (y - 0.018) - 0.0008 * bend, 0.0019)


def _crows_feet(x: np.ndarray, y: np.ndarray, bend: np.ndarray, landmarks: Landmarks) -> np.ndarray:
    dx, dy = x - (landmarks.eye[0] + 0.0125), y - 0.001
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    window = (
        smoothstep(0.004, 0.008, radius)
        * smoothstep(0.026, 0.014, radius)
        * smoothstep(1.05, 0.7, np.abs(angle))
    )
    folded = (angle / 0.36 + 0.45 * bend) % 1.0
    distance = (folded - 0.5) * 0.36 * radius
    return 0.75 * window * valley(distance, 0.0013)


def _bags(x: np.ndarray, y: np.ndarray, landmarks: Landmarks) -> np.ndarray:
    """The pouch under the eye: a bulge with a crease below it, and a finer one near the lid."""
    dx = (x - landmarks.eye[0] + 0.001) / 0.0175
    window = smoothstep(1.15, 0.5, np.abs(dx))
    arc = -0.0185 + 0.0055 * dx**2
    fine = -0.0125 + 0.0055 * dx**2
    bulge = np.exp(-(((y - arc - 0.0042) / 0.0028) ** 2))
    return window * (1.2 * valley(y - arc, 0.0023) + 0.45 * valley(y - fine, 0.0013) + 0.7 * bulge)


def _folds(landmarks: Landmarks) -> tuple[tuple[np.ndarray, float, float], ...]:
    wing, mouth, corner = landmarks.nose_wing, landmarks.mouth, landmarks.mouth_half_width
    nasolabial = np.array(
        [
            [wing[0] + 0.0005, wing[1] + 0.007],
            [wing[0] + 0.0075, wing[1] - 0.001],
            [corner + 0.0085, mouth[1] + 0.012],
            [corner + 0.0115, mouth[1] + 0.001],
            [corner + 0.0095, mouth[1] - 0.009],
        ]
    )
    marionette = np.array(
        [
            [corner + 0.001, mouth[1] - 0.004],
            [corner + 0.0035, mouth[1] - 0.013],
            [corner + 0.0030, mouth[1] - 0.024],
        ]
    )
    neck = np.array([[0.0, -0.105], [0.030, -0.100], [0.060, -0.085]])
    return (nasolabial, 0.0034, 1.5), (marionette, 0.0027, 1.2), (neck, 0.0028, 0.7)


def add_crease(
    height: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    curve: np.ndarray,
    width: float,
    depth: float,
    bend: np.ndarray,
) -> None:
    """Add a valley along a curve, fading at both ends."""
    reach = 7 * width  # where the profile has fallen below 1e-13
    low, high = curve.min(axis=0) - reach, curve.max(axis=0) + reach
    near = np.flatnonzero((x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1]))
    x, y, bend = x[near], y[near], bend[near]
    best = np.full(x.shape, np.inf)
    place = np.zeros_like(x)
    segments = len(curve) - 1
    for k in range(segments):
        a, b = curve[k], curve[k + 1]
        ab = b - a
        t = np.clip(((x - a[0]) * ab[0] + (y - a[1]) * ab[1]) / (ab @ ab), 0.0, 1.0)
        distance = np.hypot(x - a[0] - t * ab[0], y - a[1] - t * ab[1])
        closer = distance < best
        best = np.where(closer, distance, best)
        place = np.where(closer, (k + t) / segments, place)
    ends = smoothstep(0.0, 0.22, place) * smoothstep(1.0, 0.6, place)
    height[near] += depth * ends * (0.9 + 0.25 * bend) * valley(best, width)


def smooth_curve(line: np.ndarray, count: int = 9) -> np.ndarray:
    """Points on a curve through the given ones (interpolating polynomial over their index; there are three
    to five).
    """
    index = np.arange(len(line))
    dense = np.linspace(0, len(line) - 1, count)
    return np.stack(
        [np.polyval(np.polyfit(index, line[:, k], min(len(line) - 1, 3)), dense) for k in range(2)], axis=1
    )
