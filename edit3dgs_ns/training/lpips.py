"""LPIPS where its weights are on the machine; never a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.errors import MissingFileError, UserError

_ALEXNET = "alexnet-owt-7be5be79.pth"


def weights_path() -> Path:
    """Where PyTorch keeps the weights of LPIPS' AlexNet, whether they are there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / _ALEXNET


class LazyLpips:
    """LPIPS, built when first asked for and only from weights that are there. No module of the model: not in its checkpoints."""

    def __init__(self) -> None:
        self._metric: Any = None

    def __call__(
        self, a: Float[Tensor, "1 3 height width"], b: Float[Tensor, "1 3 height width"]
    ) -> float | None:
        """The distance, or None without weights."""
        if not weights_path().is_file():
            return None
        with torch.no_grad():
            return float(self.distance(a, b))

    def distance(
        self, a: Float[Tensor, "views 3 height width"], b: Float[Tensor, "views 3 height width"]
    ) -> Float[Tensor, ""]:
        """Mean distance (Zhang et al., CVPR 2018) of images in [0, 1]; differentiable in both.

        Raises:
            FileNotFoundError: no weights.
            ValueError: the file of the weights is damaged.
        """
        if self._metric is None:
            self._metric = _build()
        metric = self._metric.to(a.device)
        value = metric(a.clamp(0, 1), b.clamp(0, 1))
        metric.reset()  # it would keep every value it ever gave, with its graph
        return value


def _build() -> Any:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    path = weights_path()
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; LPIPS needs it.")
    try:
        metric = LearnedPerceptualImagePatchSimilarity(normalize=True)
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as AlexNet's weights ({type(error).__name__}: {str(error)[:200]}). It is damaged: "
            "remove it, or fetch it again."
        ) from error
    return metric.requires_grad_(False)
