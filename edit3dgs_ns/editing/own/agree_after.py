"""Agreement of views after they were edited, for editors that show no predictions: in image space, low frequencies first.

First every view as a whole: a gain and an offset for each colour channel that bring it to the median of all views where they show
    the same surface points. Then every surface point: its colour without fine detail is moved to the one that the views agree on, a
    median weighed by how finely each view sees the point (`Correspondence.match_latents`), so that one unlike view does not
    stain the others. Detail stays each view's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.editing.agreement.correspondence import Correspondence, LatentMatches
from edit3dgs_ns.editing.agreement.matching import make_correspondence
from edit3dgs_ns.editing.editor import Editor, EditRequest, EditResult, Finished, Progress
from edit3dgs_ns.editing.framing import Frame
from edit3dgs_ns.editing.judging.siblings import SharedCells

_ROUNDS = 3
"""Times that the views are brought to their median as wholes: it moves with them."""
_GAINS = (0.5, 2.0)
_SPREAD = 0.05
"""Prior of a gain: colours that hardly vary over the head do not fix one."""
_CELL = 4
"""Pixels of a position on the surface, at a longer side of 256."""
_MEDIAN_STEPS = 8
_ANCHOR_VOICES = 4
"""An anchor counts as so many views."""


class AgreeingEditor:
    """An `Editor` whose views are made to agree after another one has edited them.

    Args:
        editor: edits each view by itself.
    """

    def __init__(self, editor: Editor):
        self.inner = editor
        """The editor itself."""

    @property
    def settings(self) -> dict[str, Any]:
        """Of the editor, and of the agreement."""
        return {**self.inner.settings, "agree_after": "rig"}

    @property
    def views_depend(self) -> bool:
        """They do once they agree."""
        return True

    def unknown_instruction(self, prompt: str) -> str | None:
        """See `Editor`."""
        return self.inner.unknown_instruction(prompt)

    def edit(
        self, request: EditRequest, progress: Progress | None = None, finished: Finished | None = None
    ) -> EditResult:
        """Edits, and lets the views agree; `finished` is called once they do."""
        result = self.inner.edit(request, progress)
        images = result.images.copy()
        for anchor in request.anchors:  # their appearance is settled
            images[anchor] = request.images[anchor]
        images = agree_images(request, images)
        if finished is not None:
            for view, image in enumerate(images):
                finished(view, image)
        settings = {**result.settings, "agree_after": "rig"}
        return EditResult(images, settings, result.unet_evaluations, result.seconds)


def agree_images(
    request: EditRequest, images: Float[np.ndarray, "views height width 3"]
) -> Float[np.ndarray, "views height width 3"]:
    """Edited views whose colours agree where they show the same surface points.

    Views that are not finite are left as they are and not listened to; what a request keeps of the originals stays.

    Args:
        request: the batch, with canonical maps and cameras.
        images: its edits.
    """
    good = np.isfinite(images).all(axis=(1, 2, 3))
    if request.canonical is None or good.sum() < 2:
        return images
    chosen = np.flatnonzero(good)
    part = request.part(chosen.tolist())
    agreed = _points_agree(part, _wholes_agree(part, images[chosen]))
    if part.keep_mask is not None:
        kept = part.keep_mask[..., None]
        agreed = kept * images[chosen] + (1 - kept) * agreed
    result = images.copy()
    free = [place for place in range(len(chosen)) if place not in part.anchors]
    result[chosen[free]] = agreed[free].clip(0, 1)
    return result


# -- whole views ---------------------------------------------------------------------------------------------------


def _wholes_agree(
    request: EditRequest, images: Float[np.ndarray, "views height width 3"]
) -> Float[np.ndarray, "views height width 3"]:
    assert request.canonical is not None
    cells, result = SharedCells(request.canonical), images.astype(np.float32)
    head = np.isfinite(request.canonical).all(axis=-1)
    voices = [
        view for view in range(len(images)) for _ in range(_ANCHOR_VOICES if view in request.anchors else 1)
    ]
    for _ in range(_ROUNDS):
        colors = cells.colors(result)
        shared = np.isfinite(colors[..., 0]).sum(axis=0) > 1
        if not shared.any():
            return result
        median = np.nanmedian(colors[voices][:, shared], axis=0)
        for view in range(len(images)):
            if view in request.anchors:
                continue
            gain, offset = _gain_and_offset(colors[view][shared], median)
            result[view] = np.where(head[view][..., None], result[view] * gain + offset, result[view])
    return result


def _gain_and_offset(
    own: Float[np.ndarray, "cells 3"], wanted: Float[np.ndarray, "cells 3"]
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """What brings a view's colours to those wanted, for each channel; cells that do not follow count little."""
    known = np.isfinite(own[:, 0])
    gain, offset = np.ones(3, np.float32), np.zeros(3, np.float32)
    if known.sum() < 10:
        return gain, offset
    for k in range(3):
        x, y = own[known, k], wanted[known, k]
        weight = np.ones_like(x)
        for _ in range(5):
            middle, target = np.average(x, weights=weight), np.average(y, weights=weight)
            spread = np.average((x - middle) ** 2, weights=weight)
            slope = np.average((x - middle) * (y - target), weights=weight) + _SPREAD**2
            gain[k] = np.clip(slope / (spread + _SPREAD**2), *_GAINS)
            offset[k] = target - gain[k] * middle
            weight = 1 / (np.abs(gain[k] * x + offset[k] - y) + 0.02)
    return gain, offset


# -- surface points ------------------------------------------------------------------------------------------------


def _points_agree(
    request: EditRequest, images: Float[np.ndarray, "views height width 3"]
) -> Float[np.ndarray, "views height width 3"]:
    """Moves the low frequencies of every view to what the views agree on at the same surface points."""
    assert request.canonical is not None
    height, width = images.shape[1:3]
    cell = max(1, round(_CELL * max(height, width) / 256))
    frame = Frame.fit(height, width, cell)
    correspondence = make_correspondence("rig", request, frame, torch.device("cpu"))
    assert correspondence is not None
    size = (frame.canvas[0] // cell, frame.canvas[1] // cell)
    head = torch.from_numpy(np.isfinite(request.canonical).all(axis=-1)).float()[:, None]
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    low, cover = _on_cells(pictures, head, frame, size)
    moved, trust = _agreed_cells(low, correspondence, size)
    # Towards silhouettes, where cells mix head and background, a view follows its own inside.
    shift = _smooth((moved - low) * trust * cover) / _smooth(trust * cover).clamp(min=1e-3)
    full = F.interpolate(shift, size=frame.canvas, mode="bilinear", align_corners=False)
    left, _, top, _ = frame.margins
    full = full[:, :, top : top + height, left : left + width]
    changed: np.ndarray = (pictures + head * full).permute(0, 2, 3, 1).numpy()
    return changed


def _on_cells(
    pictures: Float[Tensor, "views 3 height width"],
    head: Float[Tensor, "views 1 height width"],
    frame: Frame,
    size: tuple[int, int],
) -> tuple[Float[Tensor, "views 3 h w"], Float[Tensor, "views 1 h w"]]:
    """Mean colour of the head in every cell, without fine detail, and how much of the cell it covers."""
    weights, colors = (F.pad(part, frame.margins) for part in (head, pictures * head))
    cover = F.adaptive_avg_pool2d(weights, size)
    sums = _smooth(F.adaptive_avg_pool2d(colors, size))
    return sums / _smooth(cover).clamp(min=1e-3), cover


def _smooth(values: Float[Tensor, "views channels h w"]) -> Float[Tensor, "views channels h w"]:
    """The mean over 3 x 3 cells."""
    return F.avg_pool2d(values, 3, stride=1, padding=1, count_include_pad=True)


def _agreed_cells(
    low: Float[Tensor, "views 3 h w"], correspondence: Correspondence, size: tuple[int, int]
) -> tuple[Float[Tensor, "views 3 h w"], Float[Tensor, "views 1 h w"]]:
    """The colours that the views agree on in their cells, and how far these are known."""
    views = range(len(low))
    table = low.permute(0, 2, 3, 1).reshape(-1, 3)
    result, trust = low.clone(), torch.zeros(len(low), 1, *size)
    for view, matches in zip(views, correspondence.match_latents(views, views, size, None), strict=True):
        result[view] = _median(table, matches).T.reshape(3, *size)
        seen = (matches.weight > 0).sum(dim=1) > 1
        trust[view, 0] = (matches.trust * seen).reshape(size)
    return result, trust


def _median(table: Float[Tensor, "all_positions 3"], matches: LatentMatches) -> Float[Tensor, "positions 3"]:
    """The weighted geometric median of the colours that a position takes (Weiszfeld's iteration)."""
    values, weight = table[matches.index], matches.weight[..., None]
    middle = (values * weight).sum(dim=1)
    for _ in range(_MEDIAN_STEPS):
        near = weight / (values - middle[:, None]).norm(dim=-1, keepdim=True).clamp(min=1e-3)
        middle = (values * near).sum(dim=1) / near.sum(dim=1).clamp(min=1e-9)
    return middle
