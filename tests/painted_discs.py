"""Views of a painted disc from several sides, of which every surface point is known."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

SIZE, VIEWS = 160, 4
GREEN = np.array([0.35, 0.9, 0.35], np.float32)


def paint() -> np.ndarray:
    """Smooth random colours of a surface, from 0 to 1."""
    noise = np.random.default_rng(5).random((256, 256, 3))
    smooth = np.stack([gaussian_filter(noise[..., k], 4, mode="wrap") for k in range(3)], axis=-1)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def views() -> tuple[np.ndarray, np.ndarray]:
    """A painted disc seen from four sides, and where on its surface every pixel is (metres)."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    images, places = [], []
    for shift in np.linspace(-12, 12, VIEWS):
        x, y = columns - SIZE / 2 - shift, rows - SIZE / 2
        inside = np.hypot(x, 0.85 * y) < 52
        u, v = x + 128 + 0.5 * shift, y + 128
        color = paint()[np.clip(v, 0, 255).astype(int), np.clip(u, 0, 255).astype(int)]
        images.append(np.where(inside[..., None], color, 1.0))
        surface = np.stack([u, v, np.zeros_like(u)], axis=-1) * 0.0016
        places.append(np.where(inside[..., None], surface, np.nan))
    return np.stack(images).astype(np.float32), np.stack(places).astype(np.float32)
