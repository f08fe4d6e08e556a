"""LPIPS where its weights are on the machine; never a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_ALEXNET = "alexnet-owt-7be5be79.pth"


class LazyLpips:
    """LPIPS, built when first asked for and only from weights that are there. No module of the model: not in its checkpoints."""

    def __init__(self) -> None:
        self._metric: Any = None

    def __call__(
        self, a: Float[Tensor, "1 3 height width"], b: Float[Tensor, "1 3 height width"]
    ) -> float | None:
        """The distance, or None without weights."""
        if not (Path(torch.hub.get_dir()) / "checkpoints" / _ALEXNET).is_file():
            return None
        if self._metric is None:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            self._metric = LearnedPerceptualImagePatchSimilarity(normalize=True)
        return float(self._metric.to(a.device)(a, b))
