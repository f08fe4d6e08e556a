"""The image loss between renders and edited images: L1 and LPIPS, or L1 and SSIM where LPIPS' weights are not at hand.

Edited images of one head differ in detail from view to view. LPIPS forgives that more than differences of single pixels
do: Instruct-NeRF2NeRF (Haque et al., ICCV 2023) and its successors fit edits with it. The binding losses of
`splats/losses.py` come on top, as in every training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.splats import losses
from edit3dgs_ns.training.lpips import LazyLpips, weights_path

LossName = Literal["auto", "lpips", "ssim"]
Images = Float[Tensor, "views height width 3"]
_LPIPS_WEIGHT = 0.5
"""L1 and LPIPS count the same, as in Instruct-NeRF2NeRF."""


@dataclass(frozen=True)
class EditLoss:
    """The image loss while edits are fitted: `(1 - weight) L1 + weight * distance`."""

    distance: Literal["lpips", "ssim"]
    weight: float
    measure: Callable[[Images, Images], Float[Tensor, ""]]

    def __call__(self, rendered: Images, target: Images) -> Float[Tensor, ""]:
        """Images in [0, 1]."""
        difference = (rendered - target).abs().mean()
        if self.weight == 0:
            return difference
        return (1 - self.weight) * difference + self.weight * self.measure(rendered, target)

    @property
    def name(self) -> str:
        """As a formula."""
        distance = "LPIPS" if self.distance == "lpips" else "(1 - SSIM)"
        return f"{1 - self.weight:g} L1 + {self.weight:g} {distance}"


def make_edit_loss(which: LossName, weight: float | None, ssim_weight: float) -> EditLoss:
    """The loss that the options ask for; nothing is ever downloaded.

    Args:
        which: `--pipeline.edit-loss`.
        weight: `--pipeline.edit-loss-weight`; None for 0.5 with LPIPS and `ssim_weight` with SSIM.
        ssim_weight: of the avatar's own training.

    Raises:
        ValueError: the weight is no share.
        FileNotFoundError: LPIPS is asked for and its weights are not there.
    """
    check_edit_loss(which, weight)
    if which == "ssim" or not weights_path().is_file():
        return EditLoss("ssim", ssim_weight if weight is None else weight, _ssim_distance)
    lpips = LazyLpips()
    lpips.distance(
        torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    )  # a damaged file is found now, not after the first edit
    return EditLoss(
        "lpips",
        _LPIPS_WEIGHT if weight is None else weight,
        lambda rendered, target: lpips.distance(rendered.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2)),
    )


def check_edit_loss(which: LossName, weight: float | None) -> None:
    """Raise for what is wrong with the options; see `make_edit_loss`."""
    if weight is not None and not 0 <= weight <= 1:
        raise UserError(f"--pipeline.edit-loss-weight {weight}: expected a share from 0 to 1.")
    if which == "lpips" and not weights_path().is_file():
        raise MissingFileError(
            f"--pipeline.edit-loss lpips: AlexNet's weights are not on this machine, expected {weights_path()}. Put "
            "them there (torchvision offers them at https://download.pytorch.org/models), or use --pipeline.edit-loss ssim, which "
            "needs none."
        )


def describe_loss(loss: EditLoss, which: LossName) -> str:
    """The loss as one line for the log."""
    reason = ""
    if which == "auto" and loss.distance == "ssim":
        reason = f" (LPIPS' weights are not on this machine: {weights_path()})"
    return f"Edits are fitted with {loss.name}{reason}"


def _ssim_distance(rendered: Images, target: Images) -> Float[Tensor, ""]:
    return 1 - losses.ssim(rendered, target)
