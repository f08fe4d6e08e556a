"""A batch of views of a ball, with all that a correspondence may ask for: what the editing benchmarks edit."""

from __future__ import annotations

from typing import Any

import numpy as np

from edit3dgs_ns.editing.editor import EditRequest

RADIUS = 0.1
"""Of the ball, in metres; the cameras are ten times as far."""


def ball_request(views: int, pixels: int, prompt: str = "Turn his skin green", **options: Any) -> EditRequest:
    """Square views of a coloured ball on white, from a half circle of cameras; it fills half of each picture.

    Args:
        views: cameras.
        pixels: side of the pictures.
        prompt: what to do with them.
        **options: further fields of the request.
    """
    c2w = np.tile(np.eye(4, dtype=np.float32), (views, 1, 1))
    for matrix, angle in zip(c2w, np.linspace(-np.pi / 2, np.pi / 2, views), strict=True):
        back = np.array([np.sin(angle), 0.0, np.cos(angle)])
        matrix[:3, :3] = np.stack([np.cross([0, 1, 0], back), [0, 1, 0], back], axis=1)
        matrix[:3, 3] = 10 * RADIUS * back
    focal = 4.0 * pixels
    K = np.array([[focal, 0, pixels / 2], [0, focal, pixels / 2], [0, 0, 1]], np.float32)
    surface = _seen_surface(c2w, pixels, focal)
    colour = 0.5 + 0.4 * np.sin(60 * surface)
    images = np.where(np.isfinite(surface), colour, 1.0).astype(np.float32)
    canonical = surface.astype(np.float32)
    return EditRequest(
        prompt, images, images, c2w=c2w, K=np.tile(K, (views, 1, 1)), canonical=canonical, **options
    )


def _seen_surface(c2w: np.ndarray, pixels: int, focal: float) -> np.ndarray:
    """Where the ray of every pixel meets the ball, metres; NaN where it misses."""
    y, x = np.mgrid[:pixels, :pixels] + 0.5
    ray = np.stack([x - pixels / 2, pixels / 2 - y, np.full_like(x, -focal)], axis=-1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    ray = ray @ c2w[:, None, :3, :3].transpose(0, 1, 3, 2)
    centre = c2w[:, None, None, :3, 3]
    b, c = (ray * centre).sum(-1), (centre**2).sum(-1) - RADIUS**2
    root = np.sqrt(np.where(b**2 > c, b**2 - c, np.nan))
    return centre + (-b - root)[..., None] * ray
