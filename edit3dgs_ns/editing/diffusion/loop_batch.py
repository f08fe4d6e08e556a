"""The state of one batch in the diffusion loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.editing.diffusion.guidance import Branch
from edit3dgs_ns.editing.diffusion.inpainting import LatentKeeper
from edit3dgs_ns.editing.diffusion.work import Work


@dataclass
class LoopBatch:
    """Inputs and running state of a batch in the denoising loop."""

    settings: dict[str, Any]
    text: tuple[Float[Tensor, "1 tokens width"], Float[Tensor, "1 tokens width"]]
    condition: Float[Tensor, "views 4 h w"]
    latents: Float[Tensor, "views 4 h w"]
    timesteps: Tensor
    generators: list[torch.Generator]
    branches: tuple[Branch, ...]
    keeper: LatentKeeper | None
    work: Work
    evaluations: int = 0

    def unet_input(
        self, latents: Float[Tensor, "views 4 h w"], views: list[int], branches: Sequence[int]
    ) -> tuple[Float[Tensor, "rows 8 h w"], Float[Tensor, "rows tokens width"]]:
        """Latents with their image condition, and text embeddings, in the order (branch, view)."""
        prompt, empty = self.text
        condition = self.condition[views]
        images = [condition if self.branches[b].image else torch.zeros_like(condition) for b in branches]
        words = [prompt if self.branches[b].text else empty for b in branches]
        inputs = torch.cat([latents[views].repeat(len(branches), 1, 1, 1), torch.cat(images)], dim=1)
        return inputs, torch.cat([word.expand(len(views), -1, -1) for word in words])
