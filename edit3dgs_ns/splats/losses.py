"""Training losses of an avatar: image similarity, and position and scale of Gaussians relative to their triangles.

GaussianAvatars (Qian et al., CVPR 2024), equations 2 to 5:

    L = (1 - w) L1 + w (1 - SSIM) + 0.01 mean |relu(|x_l| - 1)| + 1.0 mean |relu(exp(s_l) - 0.6)|

with means x_l and log scales s_l relative to the triangle; the last two terms over visible Gaussians only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from edit3dgs_ns.errors import UserError

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03
_WHITE = 254.5 / 255


def image_loss(
    rendered: Float[Tensor, "views height width 3"],
    target: Float[Tensor, "views height width 3"],
    ssim_weight: float,
) -> Float[Tensor, ""]:
    """`(1 - ssim_weight) L1 + ssim_weight (1 - SSIM)`; images in [0, 1]."""
    difference = (rendered - target).abs().mean()
    if ssim_weight == 0:
        return difference
    return (1 - ssim_weight) * difference + ssim_weight * (1 - ssim(rendered, target))


def ssim(
    a: Float[Tensor, "views height width channels"], b: Float[Tensor, "views height width channels"]
) -> Float[Tensor, ""]:
    """Mean structural similarity of images in [0, 1] (Wang et al., 2004): 11-pixel Gaussian window, sigma 1.5, no padding.

    Differentiable in both images; float32 or float64.

    Raises:
        UserError: images smaller than the window.
    """
    height, width = a.shape[1:3]
    if min(height, width) < _WINDOW:
        raise UserError(
            f"SSIM needs images of at least {_WINDOW} x {_WINDOW} pixels, found {width} x {height}."
        )
    if a.device.type == "cpu":
        from edit3dgs_ns.splats.cpu_ssim import CpuSsim

        return CpuSsim.apply(a, b, _window(), _K1**2, _K2**2)
    from pytorch_msssim import ssim as torch_ssim

    # Contiguous: convolutions of channels-last images go to cuDNN, which rounds to TF32.
    channels_first = (image.permute(0, 3, 1, 2).contiguous() for image in (a, b))
    return torch_ssim(*channels_first, data_range=1.0, win_size=_WINDOW, win_sigma=_SIGMA, K=(_K1, _K2))


def _window() -> Float[Tensor, " taps"]:
    offsets = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    return window / window.sum()


def binding_losses(
    means: Float[Tensor, "gaussians 3"],
    scales: Float[Tensor, "gaussians 3"],
    visible: Bool[Tensor, " gaussians"],
    position_threshold: float,
    scale_threshold: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """How far visible Gaussians are from their triangles, and how large (GaussianAvatars, equations 3 and 4).

    Args:
        means: triangle-local means, in triangle sizes.
        scales: triangle-local log scales.
        visible: the Gaussians that count.
        position_threshold: distance that costs nothing, in triangle sizes.
        scale_threshold: scale that costs nothing, in triangle sizes.

    Returns:
        The means of `relu(|x_l| - position_threshold)` and of `|relu(exp(s_l) - scale_threshold)|` over the visible Gaussians; 0
        where none is visible. Differentiable in `means` and `scales`.
    """
    if means.device.type == "cpu" and means.dtype == scales.dtype:
        from edit3dgs_ns.splats.cpu_losses import CpuBindingLosses  # numba: loaded where used

        return CpuBindingLosses.apply(means, scales, visible, position_threshold, scale_threshold)
    # Not by index, which would wait for the device.
    count = visible.sum().clamp(min=1)
    distance = F.relu(means.norm(dim=-1) - position_threshold)
    size = F.relu(torch.exp(scales) - scale_threshold).norm(dim=-1)
    return tuple(torch.where(visible, x, 0).sum() / count for x in (distance, size))  # type: ignore[return-value]


def background_loss(
    alpha: Float[Tensor, "views height width 1"], target: Float[Tensor, "views height width 3"]
) -> Float[Tensor, ""]:
    """Mean over all pixels of the alpha that is drawn where a target on white shows nothing at all."""
    white = target.amin(dim=-1, keepdim=True) >= _WHITE
    return (alpha * white).mean()


def psnr(a: Float[Tensor, "*image"], b: Float[Tensor, "*image"]) -> Float[Tensor, ""]:
    """Peak signal-to-noise ratio in dB of images in [0, 1]."""
    return -10 * torch.log10(((a - b) ** 2).mean().clamp_min(1e-12))
