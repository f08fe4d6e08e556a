"""Exact linear maps through networks that have group norms and SiLUs.

A value z travels as two channels (z, -z), because silu(z) - silu(-z) = z. Each group of the last group norm also holds
two constants (+-tamer), much larger than the values: the group's mean is 0 and its spread is that of the constants, so the
norm is a known constant factor, which its own weight undoes. Residual branches whose last convolution is zero do nothing.

This makes the VAE's encoder exactly a projection on principal components, with no training, and the untrained UNet
exactly the identity on its image condition.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Pairs:
    """Which channels carry +z and -z for every z, and which hold the tamers."""

    channels: tuple[tuple[int, int], ...]
    tamers: tuple[tuple[int, int], ...]
    per_group: int

    def raise_tamers(self, bias: Tensor, tamer: float) -> None:
        """Write the constants into the bias of the layer before the norm."""
        for plus, minus in self.tamers:
            bias[plus], bias[minus] = tamer, -tamer

    def read_out(self, norm: nn.GroupNorm, conv: nn.Conv2d, tamer: float) -> None:
        """Set norm and 3 x 3 convolution so that output z is value z, and other outputs are zero."""
        norm.weight.fill_(tamer * (2.0 / self.per_group) ** 0.5)
        norm.bias.zero_()
        conv.weight.zero_()
        conv.bias.zero_()
        for z, (plus, minus) in enumerate(self.channels):
            conv.weight[z, plus, 1, 1], conv.weight[z, minus, 1, 1] = 1.0, -1.0


def place_pairs(values: int, width: int, groups: int) -> Pairs:
    """Spread the pairs of `values` values over the groups of a norm with `width` channels.

    Raises:
        ValueError: a group has too few channels.
    """
    per_group, pairs = width // groups, -(-values // groups)
    if 2 * pairs + 2 > per_group:
        raise ValueError(
            f"{width} channels in {groups} groups cannot carry {values} values in pairs: make the width larger."
        )
    places = [(z // pairs) * per_group + 2 * (z % pairs) for z in range(values)]
    last = [group * per_group + per_group - 2 for group in range(groups)]
    return Pairs(tuple((p, p + 1) for p in places), tuple((t, t + 1) for t in last), per_group)


@dataclass(frozen=True)
class PatchBasis:
    """Latents of a picture: principal components of its patches, each scaled.

    Attributes:
        projection: (C, 3 * f * f), input order (row in patch, column in patch, colour), pictures in [-1, 1].
        mean: (3 * f * f,) the mean patch.
        weight: (C,) squared pictures' error per squared latent error, mean 1: weights of the UNet's loss.
    """

    projection: Float[np.ndarray, "c p"]
    mean: Float[np.ndarray, p]
    weight: Float[np.ndarray, c]

    @property
    def factor(self) -> int:
        """Side of a patch."""
        return round((len(self.mean) / 3) ** 0.5)

    def encode(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h2 w2"]:
        """What the VAE's encoder computes, much faster."""
        f = self.factor
        b, _, h, w = pictures.shape
        patches = (
            pictures.reshape(b, 3, h // f, f, w // f, f)
            .permute(0, 2, 4, 3, 5, 1)
            .reshape(b, h // f, w // f, -1)
        )
        latents = (patches - torch.from_numpy(self.mean)) @ torch.from_numpy(self.projection).T
        return latents.permute(0, 3, 1, 2)

    @classmethod
    def fit(cls, pictures: Float[np.ndarray, "n h w 3"], channels: int, factor: int) -> PatchBasis:
        """Principal components of the patches of pictures in [-1, 1].

        A component of spread s is divided by sqrt(s), up to a common factor that gives all latents together unit variance:
        half way between latents in proportion to their weight in the picture (details drown in the noise of almost
        every step) and white ones (details cost as much as the whole).
        """
        n, h, w, _ = pictures.shape
        patches = pictures.reshape(n, h // factor, factor, w // factor, factor, 3).transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(-1, factor * factor * 3).astype(np.float64)
        mean = patches.mean(axis=0)
        variance, vectors = np.linalg.eigh(np.cov((patches - mean).T))
        spread = np.sqrt(np.maximum(variance[::-1][:channels], 1e-10))
        vectors = vectors[:, ::-1][:, :channels]
        vectors = vectors * np.sign(vectors.sum(axis=0) + 1e-12)
        scale = spread**-0.5 / np.sqrt(spread.mean())
        weight = scale**-2.0
        return cls(
            np.ascontiguousarray((vectors * scale).T, np.float32),
            mean.astype(np.float32),
            (weight / weight.mean()).astype(np.float32),
        )

    @classmethod
    def load(cls, path: Path) -> PatchBasis:
        """Read what `data.save_npz(path, **vars(basis))` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["projection"], file["mean"], file["weight"])


ENCODER_TAMER = 1000.0


@torch.no_grad()
def write_encoder(vae: AutoencoderKL | AutoencoderKLFlux2, basis: PatchBasis) -> None:
    """Set the encoder to `basis`: space to depth at every downsampling, then the projection, then pairs.

    Raises:
        ValueError: the encoder has too few channels for that.
    """
    encoder, c = vae.encoder, basis.projection.shape[0]
    for module in encoder.modules():
        if module.__class__.__name__ == "ResnetBlock2D":
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
            if module.conv_shortcut is not None:
                _identity(module.conv_shortcut)
    _identity(encoder.conv_in)
    # values[k] is the (row, column, colour) that channel k holds so far, in pixels of the patch.
    values = [(0, 0, color) for color in range(3)]
    downs = [block.downsamplers[0].conv for block in encoder.down_blocks if block.downsamplers]
    projection = torch.from_numpy(basis.projection)
    offset = -projection @ torch.from_numpy(basis.mean)
    for level, conv in enumerate(downs):
        conv.weight.zero_()
        conv.bias.zero_()
        step, final = 2**level, level == len(downs) - 1
        places = [(k, dy, dx) for k in range(len(values)) for dy in range(2) for dx in range(2)]
        where = [(values[k][0] + step * dy, values[k][1] + step * dx, values[k][2]) for k, dy, dx in places]
        rows = c if final else len(places)
        if rows > conv.out_channels:
            raise ValueError(f"VAE level {level} has {conv.out_channels} channels, the encoder needs {rows}.")
        for i, ((k, dy, dx), (row, column, color)) in enumerate(zip(places, where, strict=True)):
            if final:
                # Torch pads the right and the bottom here (diffusers' Downsample2D): tap (dy, dx) is that pixel of the block.
                conv.weight[:c, k, dy, dx] = projection[:, (row * basis.factor + column) * 3 + color]
            else:
                conv.weight[i, k, dy, dx] = 1.0
        if final:
            conv.bias[:c] = offset
        values = where
    pairs = place_pairs(c, encoder.conv_norm_out.num_channels, encoder.conv_norm_out.num_groups)
    shortcut = encoder.down_blocks[-1].resnets[0].conv_shortcut
    shortcut.weight.zero_()
    for z, (plus, minus) in enumerate(pairs.channels):
        shortcut.weight[plus, z], shortcut.weight[minus, z] = 1.0, -1.0
    pairs.raise_tamers(shortcut.bias, ENCODER_TAMER)
    pairs.read_out(encoder.conv_norm_out, encoder.conv_out, ENCODER_TAMER)
    _identity(vae.quant_conv)
    # The second half of the moments is the logarithm of the variance: next to none.
    vae.quant_conv.weight[c:] = 0.0
    vae.quant_conv.bias[c:] = -14.0


def _identity(conv: nn.Conv2d) -> None:
    """Output k is input k, further outputs are zero."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    middle = conv.kernel_size[0] // 2
    for k in range(min(conv.in_channels, conv.out_channels)):
        conv.weight[k, k, middle, middle] = 1.0
