"""Views of the open head from several cameras at two timesteps, with canonical maps as the renderer gives them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from edit3dgs_ns.editing.agreement.token_grid import token_centres
from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.framing import Frame
from edit3dgs_ns.splats.rig_maps import Cameras, canonical_maps
from edit3dgs_ns.splats.views import viewmats_from_c2w
from tests.true_head import TrueHead, camera

HEIGHT, WIDTH = 112, 80
FRAME = Frame.fit(HEIGHT, WIDTH, 32, longer_side=128)
"""Scaled by 8/7 and padded at the sides: matches must undo both."""
GRID = (FRAME.canvas[0] // 4, FRAME.canvas[1] // 4)
VIEWS = (  # azimuth, elevation, jaw, turn, timestep
    (-0.5, 0.1, 0.0, 0.0, 0),
    (0.0, 0.0, 0.0, 0.0, 0),
    (0.6, -0.1, 0.0, 0.0, 0),
    (0.15, 0.2, 0.3, 0.25, 7),
    (0.0, 0.0, 0.3, 0.25, 7),
)


def head_request(views=VIEWS, **fields) -> EditRequest:
    """White pictures with cameras; without maps unless given."""
    cameras = [camera(azimuth, WIDTH, HEIGHT, elevation) for azimuth, elevation, *_ in views]
    images = np.ones((len(views), HEIGHT, WIDTH, 3), np.float32)
    return EditRequest(
        prompt="x",
        images=images,
        originals=images,
        c2w=np.stack([c2w for c2w, _ in cameras]).astype(np.float32),
        K=np.stack([K for _, K in cameras]).astype(np.float32),
        timesteps=tuple(view[4] for view in views),
        **fields,
    )


@cache
def heads() -> list[TrueHead]:
    """The head of every view."""
    return [TrueHead(jaw=jaw, turn=turn) for *_, jaw, turn, _ in VIEWS]


@cache
def head_maps() -> np.ndarray:
    """The canonical maps of all views."""
    request, maps = head_request(), []
    for view, head in enumerate(heads()):
        viewmat = viewmats_from_c2w(torch.from_numpy(request.c2w[[view]]))
        cameras = Cameras(viewmat, torch.from_numpy(request.K[[view]]), WIDTH, HEIGHT)
        maps.append(canonical_maps(head.surface(), cameras))
    return torch.cat(maps).numpy()


def token_pixels(tokens: np.ndarray, grid: tuple[int, int] = GRID) -> np.ndarray:
    """Image pixels of the centres of tokens, by the frame's own definition."""
    centres = token_centres(grid)[tokens] * (FRAME.canvas[1] / grid[1], FRAME.canvas[0] / grid[0])
    left, _, top, _ = FRAME.margins
    return (centres - (left, top)) * (WIDTH / FRAME.scaled[1], HEIGHT / FRAME.scaled[0])
