"""Requests whose views show a plane, so that their correspondences are known."""

from __future__ import annotations

import numpy as np

from edit3dgs_ns.editing.editor import EditRequest


def plane_request(shifts=(0.0, 10.0), stretch=(1.0, 1.0), hidden=slice(0, 0), **fields) -> EditRequest:
    """Views of a plane, in millimetres a pixel, the pictures moved to the left by so many pixels, and stretched across."""
    y, x = np.mgrid[:64, :64] + 0.5
    maps = [
        np.stack([(x + shift) * factor, y, 0 * x], axis=-1) / 1000
        for shift, factor in zip(shifts, stretch, strict=True)
    ]
    canonical = np.stack(maps).astype(np.float32)
    canonical[0, :, hidden] = np.nan
    c2w = np.tile(np.eye(4, dtype=np.float32), (len(shifts), 1, 1))
    c2w[:, 0, 3] = np.arange(len(shifts))
    images = np.full((len(shifts), 64, 64, 3), 0.5, np.float32)
    return EditRequest("x", images, images, c2w=c2w, canonical=canonical, **fields)
