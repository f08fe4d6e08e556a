"""Before and after in one image: a wipe from left to right."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.errors import UserError

Compare = Literal["After", "Before", "Split"]

_LINE = 0.35
"""Grey of the line between the two."""


def wiped(
    before: Float[Tensor, "height width channels"],
    after: Float[Tensor, "height width channels"],
    wipe: float,
    line: bool = False,
) -> Float[Tensor, "height width channels"]:
    """The columns left of the wipe from `before`, all others from `after`.

    Args:
        before: one image.
        after: another of the same size.
        wipe: where the border is, 0 (all after) to 1 (all before) of the width.
        line: draw the border, one pixel wide, in the first column of `after`.

    Raises:
        ValueError: the images differ in size.
    """
    if before.shape != after.shape:
        raise UserError(f"before {tuple(before.shape)} and after {tuple(after.shape)} differ in size.")
    width = after.shape[1]
    border = round(min(max(wipe, 0.0), 1.0) * width)
    result = torch.cat([before[:, :border], after[:, border:]], dim=1)
    if line and 0 < border < width:
        result[:, border] = _LINE
    return result
