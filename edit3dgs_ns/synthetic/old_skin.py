"""Relief of a very old skin as a height field over the template, finer than `wrinkles`: thin broken lines and slack folds.

Lines are about a millimetre wide, waver and break off; folds beside nose and mouth are soft steps and not furrows. Frown lines are
faint: they are what makes a resting face look angry.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.synthetic.canonical import Landmarks, lip_distance
from edit3dgs_ns.synthetic.noise import fbm, smoothstep
from edit3dgs_ns.synthetic.wrinkles import add_crease, smooth_curve, valley


def old_skin_height(
    points: Float[np.ndarray, "n 3"], landmarks: Landmarks, footprint: float = 0.0
) -> Float[np.ndarray, " n"]:
    """Height over a smooth face in millimetres; negative in creases.

    Args:
        points: on the template, metres.
        footprint: a pixel's size on the skin, metres: finer relief is left out.
    """
    front = smoothstep(landmarks.eye[2] - 0.075, landmarks.eye[2] - 0.035, points[:, 2])
    face = np.flatnonzero(front > 0)
    height = np.zeros(len(points), np.float32)
    height[face] = front[face] * _height_in_front(points[face], landmarks, footprint)
    return height


def _height_in_front(points: np.ndarray, landmarks: Landmarks, footprint: float) -> np.ndarray:
    x, y = np.abs(points[:, 0]), points[:, 1] - landmarks.eye[1]
    slow, quick = fbm(points, 30.0, 2, seed=401), fbm(points, 110.0, 2, seed=402)
    height = (
        _forehead(points[:, 0], y, slow, quick)
        + _frown(x, y, slow)
        + _crows_feet(x, y, quick, landmarks)
        + _under_eyes(x, y, quick, landmarks)
        + _around_lips(points, landmarks, footprint)
        + _crossed(points, y, landmarks, footprint)
        + _throat(points, slow)
    )
    for line, width, depth in _folds(landmarks):
        add_crease(height, x, points[:, 1], smooth_curve(line), width, depth, slow)
    return height


def _broken(strength: np.ndarray) -> np.ndarray:
    """A line's strength along it, from noise: it fades out here and there."""
    return smoothstep(-0.55, 0.15, strength)


def _forehead(x: np.ndarray, y: np.ndarray, slow: np.ndarray, quick: np.ndarray) -> np.ndarray:
    total = np.zeros_like(x)
    lines = (0.0285, 0.0350, 0.0405, 0.0470, 0.0525, 0.0590, 0.0650)
    depths = (0.30, 0.55, 0.40, 0.60, 0.35, 0.50, 0.30)
    for k, (level, depth) in enumerate(zip(lines, depths, strict=True)):
        # A shallow arch over each brow, and a wavering of its own.
        line = level + 0.0022 * np.cos(np.abs(x) / 0.013) + 0.0024 * slow + 0.0007 * quick * (-1) ** k
        strength = smoothstep(0.052 - 0.002 * k, 0.030, np.abs(x + 0.004 * (-1) ** k))
        total += depth * strength * _broken(quick * (-1) ** k) * valley(y - line, 0.0013)
    return total


def _frown(x: np.ndarray, y: np.ndarray, slow: np.ndarray) -> np.ndarray:
    window = smoothstep(0.010, 0.015, y) * smoothstep(0.028, 0.022, y)
    return 0.22 * window * valley(x - 0.0075 - 0.0006 * slow, 0.0011)


def _crows_feet(x: np.ndarray, y: np.ndarray, quick: np.ndarray, landmarks: Landmarks) -> np.ndarray:
    dx, dy = x - (landmarks.eye[0] + 0.0115), y + 0.001
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    window = smoothstep(0.003, 0.008, radius) * smoothstep(0.034, 0.014, radius)
    window = window * smoothstep(1.15, 0.75, np.abs(angle + 0.1))
    spread = 0.26
    bent = angle + 9.0 * (radius - 0.010) * np.sign(angle) * np.abs(angle) + 0.10 * quick
    distance = ((bent / spread) % 1.0 - 0.5) * spread * radius
    return 0.55 * window * _broken(quick + 0.2) * valley(distance, 0.00085)


def _under_eyes(x: np.ndarray, y: np.ndarray, quick: np.ndarray, landmarks: Landmarks) -> np.ndarray:
    """The pouch under the eye, its lower border, and two fine lines over it."""
    dx = (x - landmarks.eye[0] + 0.001) / 0.0180
    window = smoothstep(1.12, 0.5, np.abs(dx))
    border = -0.0195 + 0.0060 * dx**2 + 0.0008 * quick
    pouch = np.exp(-(((y - border - 0.0048) / 0.0034) ** 2))
    total = 0.9 * pouch + 0.75 * valley(y - border, 0.0021)
    for above, depth in ((0.0050, 0.28), (0.0078, 0.22)):
        total += depth * _broken(quick) * valley(y - border - above, 0.0009)
    return window * total


def _around_lips(points: np.ndarray, landmarks: Landmarks, footprint: float) -> np.ndarray:
    """Short upright lines over and under the red of the lips."""
    gap = -lip_distance(points, landmarks)
    window = smoothstep(0.0, 0.002, gap) * smoothstep(0.011, 0.004, gap)
    window = window * smoothstep(landmarks.mouth_half_width + 0.004, 0.012, np.abs(points[:, 0]))
    return 0.30 * window * _furrows(points, (260.0, 40.0, 40.0), 403, footprint)


def _crossed(points: np.ndarray, y: np.ndarray, landmarks: Landmarks, footprint: float) -> np.ndarray:
    """Fine lines in two directions over cheeks and temples."""
    x = points[:, 0]
    where = smoothstep(0.026, 0.044, np.abs(x)) * smoothstep(0.055, 0.030, y) * smoothstep(-0.115, -0.080, y)
    down = np.stack([x + 0.45 * np.abs(y) * np.sign(x), 0.25 * y, 0.4 * points[:, 2]], axis=1)
    along = np.stack([0.3 * x, y + 0.35 * np.abs(x), 0.3 * points[:, 2]], axis=1)
    return where * (
        0.26 * _furrows(down, 190.0, 404, footprint) + 0.16 * _furrows(along, 230.0, 405, footprint)
    )


def _furrows(points: np.ndarray, frequency, seed: int, footprint: float) -> np.ndarray:
    """Thin valleys along the zeros of a noise, about -1 in them."""
    return -np.exp(-((fbm(points, frequency, 2, seed=seed, footprint=0.5 * footprint) / 0.16) ** 2))


def _throat(points: np.ndarray, slow: np.ndarray) -> np.ndarray:
    """Rings around the neck and two slack bands down its front."""
    x, y = np.abs(points[:, 0]), points[:, 1]
    window = smoothstep(-0.070, -0.082, y)
    total = np.zeros_like(x)
    for level, depth in ((-0.086, 0.45), (-0.097, 0.7), (-0.109, 0.5)):
        total += depth * valley(y - level - 0.10 * x**2 / 0.06 - 0.0030 * slow, 0.0020)
    band = 0.9 * np.exp(-(((x - 0.017 - 0.003 * slow) / 0.0045) ** 2))
    return window * (total + band)


def _folds(landmarks: Landmarks) -> tuple[tuple[np.ndarray, float, float], ...]:
    """Curves, widths in metres and depths in millimetres of the folds beside nose and mouth, and below the jowls."""
    wing, mouth, corner = landmarks.nose_wing, landmarks.mouth, landmarks.mouth_half_width
    nasolabial = np.array(
        [
            [wing[0] + 0.0010, wing[1] + 0.006],
            [wing[0] + 0.0090, wing[1] - 0.003],
            [corner + 0.0095, mouth[1] + 0.011],
            [corner + 0.0135, mouth[1] + 0.000],
            [corner + 0.0130, mouth[1] - 0.010],
        ]
    )
    second = nasolabial[1:4] + np.array([0.0085, -0.003])
    marionette = np.array(
        [
            [corner + 0.0025, mouth[1] - 0.005],
            [corner + 0.0050, mouth[1] - 0.014],
            [corner + 0.0055, mouth[1] - 0.024],
        ]
    )
    return (nasolabial, 0.0026, 0.95), (second, 0.0014, 0.35), (marionette, 0.0020, 0.60)
