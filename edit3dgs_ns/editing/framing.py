"""Scaling and padding of images to the sizes a diffusion model takes, and back; the aspect ratio is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """Where an image of one size sits in the canvas that a model takes. Sizes are (height, width) in
    pixels."""

    image: tuple[int, int]
    scaled: tuple[int, int]
    canvas: tuple[int, int]

    @classmethod
    def fit(cls, height: int, width: int, multiple: int, longer_side: int | None = None) -> Frame:
        """The smallest canvas with sides that are multiples of `multiple`, for the image scaled to
        `longer_side` (None: as it is)."""
        factor = 1.0 if longer_side is None else longer_side / max(height, width)
        scaled = (max(1, round(height * factor)), max(1, round(width * factor)))
        canvas = tuple(-(-side // multiple) * multiple for side in scaled)
        return cls(image=(height, width), scaled=scaled, canvas=(canvas[0], canvas[1]))

    @classmethod
    def inside(cls, height: int, width: int, canvas: tuple[int, int]) -> Frame:
        """A canvas of a given size, which the image fills in one direction."""
        factor = min(canvas[0] / height, canvas[1] / width)
        scaled = min(canvas[0], round(height * factor)), min(canvas[1], round(width * factor))
        return cls(image=(height, width), scaled=scaled, canvas=canvas)

    @property
    def margins(self) -> tuple[int, int, int, int]:
        """Padding at the left, right, top and bottom; an odd pixel goes to the right or the bottom."""
        down, across = self.canvas[0] - self.scaled[0], self.canvas[1] - self.scaled[1]
        return across // 2, across - across // 2, down // 2, down - down // 2

    def cells(self, reduction: int) -> tuple[int, int]:
        """Rows and columns of the image's latents, without those of the padding.

        Args:
            reduction: pixels of a latent position, each way.
        """
        return max(1, round(self.scaled[0] / reduction)), max(1, round(self.scaled[1] / reduction))

    def enter(
        self, images: Float[Tensor, "views 3 height width"]
    ) -> Float[Tensor, "views 3 canvas_height canvas_width"]:
        """Scale and pad images in [0, 1] with white."""
        if self.scaled != self.image:
            images = F.interpolate(images, size=self.scaled, mode="bicubic", antialias=True).clamp(0, 1)
        return F.pad(images, self.margins, value=1.0)

    def leave(
        self, canvas: Float[Tensor, "views 3 canvas_height canvas_width"]
    ) -> Float[Tensor, "views 3 height width"]:
        """Crop and scale back."""
        left, _, top, _ = self.margins
        images = canvas[:, :, top : top + self.scaled[0], left : left + self.scaled[1]]
        if self.scaled != self.image:
            images = F.interpolate(images, size=self.image, mode="bicubic", antialias=True).clamp(0, 1)
        return images


def to_tensor(
    images: Float[np.ndarray, "views height width 3"], device: torch.device
) -> Float[Tensor, "views 3 height width"]:
    """(views, height, width, 3) numpy images as a float32 tensor with the channels first."""
    return torch.from_numpy(images).to(device=device, dtype=torch.float32).permute(0, 3, 1, 2).contiguous()
