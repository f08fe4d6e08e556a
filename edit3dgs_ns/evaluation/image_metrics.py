"""Metrics that compare images: PSNR, SSIM, LPIPS, and the change of head and background.

All images are float32 RGB in [0, 1], on white, as (views, height, width, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from edit3dgs_ns.errors import UserError

Perceptual = Callable[
    [Float[torch.Tensor, "1 3 height width"], Float[torch.Tensor, "1 3 height width"]], float | None
]
"""LPIPS of a render and the ground truth, in [0, 1]; None where its weights are not available."""


@dataclass(frozen=True)
class Quality:
    """Quality of renders against the ground truth, averaged over images."""

    psnr: float
    """Peak signal-to-noise ratio in dB, white background included (as GaussianAvatars reports it)."""
    ssim: float
    """Structural similarity (Wang et al. 2004), 11 x 11 Gaussian window of sigma 1.5."""
    lpips: float | None = None
    """Perceptual distance (Zhang et al., CVPR 2018, AlexNet); None where it was not requested or its weights are not available."""

    def known(self) -> dict[str, float]:
        """The metrics that are not None, by name."""
        figures = {"psnr": self.psnr, "ssim": self.ssim, "lpips": self.lpips}
        return {name: value for name, value in figures.items() if value is not None}


def image_quality(
    pairs: Iterable[tuple[Float[np.ndarray, "height width 3"], Float[np.ndarray, "height width 3"]]],
    perceptual: Perceptual | None = None,
) -> Quality:
    """Average PSNR, SSIM and LPIPS over (render, truth) pairs; each image counts the same.

    Raises:
        ValueError: there is no pair, or the two images of one differ in size.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    scores, distances = [], []
    for number, (render, truth) in enumerate(pairs):
        if render.shape != truth.shape:
            raise UserError(f"image {number}: the render is {render.shape}, the truth {truth.shape}.")
        a, b = (torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() for image in (render, truth))
        similarity = ssim(a, b, data_range=1.0)
        assert isinstance(similarity, torch.Tensor)
        scores.append((psnr(render, truth), float(similarity)))
        distances.append(None if perceptual is None else perceptual(a, b))
    if not scores:
        raise UserError("There are no images to compare.")
    mean = np.mean(scores, axis=0)
    known = [distance for distance in distances if distance is not None]
    lpips = float(np.mean(known)) if known else None
    return Quality(psnr=float(mean[0]), ssim=float(mean[1]), lpips=lpips)


def psnr(render: Float[np.ndarray, "*image"], truth: Float[np.ndarray, "*image"]) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(1 / MSE); infinite for equal images."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    # In float64: the squares of small differences would lose digits.
    a, b = (torch.from_numpy(np.array(image, np.float64)) for image in (render, truth))
    return float(peak_signal_noise_ratio(a, b, data_range=1.0))


@dataclass(frozen=True)
class Change:
    """Mean absolute difference of two images (0 to 1) on the head and on the background."""

    on_head: float
    on_background: float


def mean_change(
    before: Float[np.ndarray, "views height width 3"],
    after: Float[np.ndarray, "views height width 3"],
    head: Bool[np.ndarray, "views height width"],
) -> Change:
    """Mean absolute difference of renders before and after an edit, on the head and on the background, over all views.

    Args:
        head: true where a pixel shows the head.

    Raises:
        ValueError: the shapes disagree, or no pixel shows the head or none the background.
    """
    if not before.shape == after.shape == (*head.shape, 3):
        raise UserError(f"Shapes differ: before {before.shape}, after {after.shape}, head {head.shape}.")
    if head.all() or not head.any():
        raise UserError("The mask has to have both head and background; it is the same everywhere.")
    difference = np.abs(after.astype(np.float64) - before.astype(np.float64)).mean(axis=-1)
    return Change(on_head=float(difference[head].mean()), on_background=float(difference[~head].mean()))
