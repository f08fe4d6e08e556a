"""The rendered scenes as latents in memory, and what is known of them: where the skin is, how much an edit changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tools.data.demo_editor.data import load_images
from tools.data.demo_editor.further import FURTHER, SHOWN, load_numbers
from tools.data.demo_editor.passthrough import PatchBasis
from tools.data.demo_editor.settings import EDIT_ORDER, HUES, OPEN_ORDER
from tools.data.demo_editor.vae import to_tensor

OLDER_WEIGHT = 4.0
"""How much more the edit "older" counts: its hair changes so much that by the size of the change alone its lines would not."""
MOST_IMPORTANT = 2.0
"""Largest weight of a further edit, in units of the largest of the six: an iris is a few pixels, whose errors would shake all."""


@dataclass
class Scenes:
    """The training scenes.

    Attributes:
        plain: original, six edits, softened original (float16).
        opened: every open edit in every hue (float16); of the first scenes alone if fewer were rendered.
        skin: where the edit that paints the skin green changes a scene.
        further: further edits (float16); of the first scenes alone if fewer were rendered.
        numbers: which they are, as places in `further.FURTHER`.
    """

    plain: Float[np.ndarray, "scenes eight channels h w"]
    opened: Float[np.ndarray, "some edits hues channels h w"]
    skin: Bool[np.ndarray, "scenes h w"]
    further: Float[np.ndarray, "few shown channels h w"] = field(
        default_factory=lambda: np.zeros((0, SHOWN, 0, 0, 0), np.float16)
    )
    numbers: Int64[np.ndarray, "few shown"] = field(default_factory=lambda: np.zeros((0, SHOWN), np.int64))

    @classmethod
    def read(
        cls,
        plain: list[Path],
        opened: list[Path],
        further: list[Path],
        basis: PatchBasis,
        shrink: int,
        weight: Tensor,
    ) -> Scenes:
        """Encode finished shards, the pictures made smaller by `shrink` first; every other scene is mirrored."""
        latents = encode_shards(plain, basis, shrink)
        return cls(
            latents,
            encode_open(opened, basis, shrink),
            skin_mask(latents, weight),
            encode_further(further, basis, shrink),
            load_numbers(further),
        )


def soften(images: Tensor, generator: torch.Generator) -> Tensor:
    """Slight blur (sigma 0.4 to 1.1 pixels) and noise, (B, 3, H, W) in [-1, 1]."""
    sigma = 0.4 + 0.7 * torch.rand((), generator=generator)
    x = torch.arange(-3, 4).float()
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).repeat(3, 1, 1)
    blurred = F.conv2d(F.pad(images, (3, 3, 3, 3), mode="replicate"), kernel[:, :, :, None], groups=3)
    blurred = F.conv2d(blurred, kernel[:, :, None, :], groups=3)
    return (
        blurred + 0.03 * torch.rand((), generator=generator) * torch.randn(images.shape, generator=generator)
    ).clamp(-1, 1)


@torch.no_grad()
def encode_shards(paths: list[Path], basis: PatchBasis, shrink: int = 1) -> np.ndarray:
    """Latents of rendered shards, float16 (scenes, 8, C, h, w): original, six edits, softened original.

    Every other scene is mirrored.

    Args:
        shrink: the pictures are made smaller by this factor first.
    """
    scenes = []
    for path in paths:
        generator = torch.Generator().manual_seed(int(path.stem))
        for index, scene in enumerate(load_images([path])):
            pictures = F.avg_pool2d(to_tensor(scene), shrink)
            pictures = torch.cat([pictures, soften(pictures[:1], generator)])
            scenes.append(basis.encode(pictures.flip(-1) if index % 2 else pictures).half())
    return torch.stack(scenes).numpy()


@torch.no_grad()
def encode_open(paths: list[Path], basis: PatchBasis, shrink: int = 1) -> np.ndarray:
    """Latents of open shards, float16 (scenes, edits, hues, C, h, w), mirrored like the plain ones."""
    scenes = []
    for path in paths:
        for index, scene in enumerate(load_images([path])):
            pictures = F.avg_pool2d(to_tensor(scene.reshape(-1, *scene.shape[2:])), shrink)
            latents = basis.encode(pictures.flip(-1) if index % 2 else pictures).half()
            scenes.append(latents.unflatten(0, scene.shape[:2]))
    return (
        torch.stack(scenes).numpy() if scenes else np.zeros((0, len(OPEN_ORDER), HUES, 0, 0, 0), np.float16)
    )


@torch.no_grad()
def encode_further(paths: list[Path], basis: PatchBasis, shrink: int = 1) -> np.ndarray:
    """Latents of further shards, float16 (scenes, SHOWN, C, h, w), mirrored like the plain ones."""
    scenes = []
    for path in paths:
        for index, scene in enumerate(load_images([path])):
            pictures = F.avg_pool2d(to_tensor(scene), shrink)
            scenes.append(basis.encode(pictures.flip(-1) if index % 2 else pictures).half())
    return torch.stack(scenes).numpy() if scenes else np.zeros((0, SHOWN, 0, 0, 0), np.float16)


def edit_importance(scenes: Scenes, weight: Tensor) -> Float[Tensor, " edits"]:
    """Weights of the plain edits, then of the open and of the further ones, in the loss; mean 1: the less an edit changes, the
    more its errors count.

    Error ratios (dB) matter, and red lips change a fiftieth of what bronze does; the square root keeps the gradients calm.
    """

    def change(after: np.ndarray, before: np.ndarray) -> Tensor:
        difference = torch.from_numpy(after.astype(np.float32)) - torch.from_numpy(before.astype(np.float32))
        return (weight * difference.square()).mean(dim=(0, -3, -2, -1))

    some, opened = scenes.plain[:100], scenes.opened[:20]
    changes = change(some[:, 1:7], some[:, :1])
    if len(opened):
        changes = torch.cat([changes, change(opened, some[: len(opened), :1, None]).mean(dim=1)])
    elif len(scenes.further):
        changes = torch.cat([changes, torch.ones(len(OPEN_ORDER))])  # none is drawn
    importance = changes**-0.5
    if len(scenes.further):
        further = _further_changes(scenes, weight) ** -0.5
        importance = torch.cat([importance, further.clamp(max=MOST_IMPORTANT * importance[:6].max())])
    importance[EDIT_ORDER.index("older")] *= OLDER_WEIGHT
    return importance / importance.mean()


def _further_changes(scenes: Scenes, weight: Tensor) -> Float[Tensor, " further"]:
    """How much each further edit changes on average; the mean of the others where none was rendered yet."""
    sums, counts = torch.zeros(2, len(FURTHER))
    for after, before, numbers in zip(scenes.further[:100], scenes.plain, scenes.numbers, strict=False):
        difference = torch.from_numpy(after.astype(np.float32) - before[:1].astype(np.float32))
        sums.index_add_(0, torch.from_numpy(numbers), (weight * difference.square()).mean(dim=(-3, -2, -1)))
        counts.index_add_(0, torch.from_numpy(numbers), torch.ones(len(numbers)))
    changes = sums / counts.clamp(min=1)
    return torch.where(counts > 0, changes, changes[counts > 0].mean())


def skin_mask(latents: np.ndarray, weight: Tensor) -> Bool[np.ndarray, "scenes h w"]:
    """Where the edit that paints the skin green changes a scene."""
    green = 1 + EDIT_ORDER.index("green_skin")
    change = (latents[:, green].astype(np.float32) - latents[:, 0]) ** 2
    return (weight.numpy() * change).mean(axis=1) > 0.15
