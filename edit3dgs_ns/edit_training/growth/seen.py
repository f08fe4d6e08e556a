"""What an edited view shows against the avatar before the edit: where it changed, what is new, what has gone.

Everything is on white, so that a pixel shows something where it is not white.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edit3dgs_ns.splats.binding import TriangleFrames

SHOWS = 0.06
"""Distance from white (largest channel) from which a pixel shows something."""
CHANGED = 0.12
"""Difference of colours (largest channel) from which a pixel has changed."""
_PAINTED = 0.2
"""Share of a border that an edit may reach."""


@dataclass(frozen=True)
class SeenView:
    """One edited view.

    Attributes:
        viewmat: camera_from_world, OpenCV axes.
        K: intrinsics in pixels.
        timestep: a number that views of one pose share.
        frames: the head's triangles in this pose.
        edited: the edited image.
        original: the image before the edit.
        alpha, depth: of the unedited avatar; depth in metres along the camera's axis, infinite where nothing hides what is behind.
        rest: point on the canonical head that the unedited avatar shows; NaN where nothing certain.
    """

    viewmat: Float[Tensor, "4 4"]
    K: Float[Tensor, "3 3"]
    timestep: int
    frames: TriangleFrames
    edited: Float[Tensor, "height width 3"]
    original: Float[Tensor, "height width 3"]
    alpha: Float[Tensor, "height width"]
    depth: Float[Tensor, "height width"]
    rest: Float[Tensor, "height width 3"]

    @property
    def shows(self) -> Bool[Tensor, "height width"]:
        """Where the edited image shows anything."""
        return distance_from_white(self.edited) > SHOWS

    @property
    def on_white(self) -> bool:
        """Whether the edited image has left the background white: along its border, where the original is."""
        border = torch.ones_like(self.shows)
        border[2:-2, 2:-2] = False
        border &= distance_from_white(self.original) < SHOWS
        return bool((self.shows & border).sum() <= _PAINTED * border.sum())

    @property
    def changed(self) -> Bool[Tensor, "height width"]:
        """Where the edited image shows something that was not there, in colour or at all."""
        difference = (self.edited - self.original).abs().amax(dim=-1)
        return (difference > CHANGED) & self.shows

    @property
    def outside(self) -> Bool[Tensor, "height width"]:
        """Where the edited image shows something clear of the old silhouette."""
        return self.changed & ~dilated(self._old, 1)

    @property
    def emptied(self) -> Bool[Tensor, "height width"]:
        """Where the original shows something and the edited image, clear of all it shows, the background.

        White that the old background does not reach is paint on the head, like that of a mime.
        """
        from scipy.ndimage import label  # heavy

        blank = ~dilated(self.shows, 1)
        part = torch.from_numpy(label(blank.cpu().numpy())[0]).to(self.alpha.device)
        reached = torch.isin(part, torch.unique(part[blank & ~self._old]))
        return (distance_from_white(self.original) > CHANGED) & blank & reached

    @property
    def _old(self) -> Bool[Tensor, "height width"]:
        """The silhouette before the edit."""
        return (self.alpha > 0.1) | (distance_from_white(self.original) > SHOWS)

    def project(
        self, points: Float[Tensor, "points 3"]
    ) -> tuple[Int[Tensor, " points"], Float[Tensor, " points"], Bool[Tensor, " points"]]:
        """Pixels (row * width + column), depths in metres, and which of the points are inside the image."""
        height, width = self.alpha.shape
        at = points @ self.viewmat[:3, :3].T + self.viewmat[:3, 3]
        depth = at[:, 2]
        pixel = (at @ self.K.T)[:, :2] / depth.clamp_min(1e-6)[:, None]
        column, row = pixel.floor().long().unbind(dim=1)
        inside = (depth > 1e-3) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        return torch.where(inside, row * width + column, 0), depth, inside


def distance_from_white(image: Float[Tensor, "*size 3"]) -> Float[Tensor, "*size"]:
    """1 minus the smallest channel."""
    return 1 - image.amin(dim=-1)


def dilated(mask: Bool[Tensor, "height width"], pixels: int) -> Bool[Tensor, "height width"]:
    """The mask and all within some pixels of it (a square)."""
    if pixels < 1:
        return mask
    return F.max_pool2d(mask[None, None].float(), 2 * pixels + 1, 1, pixels)[0, 0] > 0


def eroded(mask: Bool[Tensor, "height width"], pixels: int) -> Bool[Tensor, "height width"]:
    """The mask without all within some pixels of its border."""
    return ~dilated(~mask, pixels)


@torch.no_grad()
def unexplained(views: list[SeenView], cell: float) -> list[Bool[Tensor, "height width"]]:
    """Where edited views show what recolouring the old surface cannot explain.

    Clear of the old silhouette that is anything. Inside, it is a change over a point of the old surface that other views show
    unchanged: something new is in front of it here and not there.

    Args:
        views: the edited views.
        cell: size of what counts as one surface point, metres; more than a pixel.
    """
    keys = [torch.where(view.rest.isfinite().all(dim=-1, keepdim=True), view.rest, 0.0) for view in views]
    cells = [(key / cell).floor().long() + 512 for key in keys]
    codes = [(c[..., 0] * 1024 + c[..., 1]) * 1024 + c[..., 2] for c in cells]
    known = [view.rest.isfinite().all(dim=-1) & eroded(view.alpha > 0.9, 2) for view in views]
    same, other = [], []
    for view, code, sure in zip(views, codes, known, strict=True):
        same.append(code[sure & ~dilated(view.changed, 1)])
        other.append(code[sure & eroded(view.changed, 1)])
    unique, index = torch.unique(torch.cat([*same, *other]), return_inverse=True)
    count = sum(len(c) for c in same)
    unchanged = torch.bincount(index[:count], minlength=len(unique)).float()
    total = torch.bincount(index, minlength=len(unique)).float()
    refuted = (unchanged >= 2) & (unchanged >= 0.3 * total)
    result = []
    for view, code, sure in zip(views, codes, known, strict=True):
        place = torch.searchsorted(unique, code).clamp(max=max(len(unique) - 1, 0))
        found = (unique[place] == code) & refuted[place] if len(unique) else torch.zeros_like(sure)
        result.append(view.outside | (found & sure & eroded(view.changed, 1)))
    return result
