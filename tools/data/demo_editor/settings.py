"""Sizes of the demo editor and the layout of its work folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

EDIT_ORDER = ("older", "green_skin", "blond_hair", "red_lips", "bronze_statue", "pale_vampire")
"""The order of the edited pictures in a shard; picture 0 is the original."""

OPEN_ORDER = ("bright_hair", "face_paint", "bright_statue")
"""The open edits, whose hue the noise decides, in the order of an open shard."""

HUES = 6
"""Pictures of every open edit: the hues 0, 1/6, ... of a turn. Between two of them colours are linear."""


@dataclass(frozen=True)
class Settings:
    """Everything that fixes the shape of the models and of the data.

    The defaults are the shipped editor. `tiny()` trains in seconds on coloured ellipses, for tests.
    """

    resolution: int = 256
    latent_channels: int = 24
    vae_channels: tuple[int, ...] = (16, 32, 64)
    vae_groups: int = 8
    unet_channels: tuple[int, ...] = (64, 96, 160)
    unet_heads: tuple[int, ...] = (1, 1, 4)
    """Attention heads per level. One head at 32 x 32: softmax cost on the CPU grows with the heads."""
    unet_attention: tuple[bool, ...] = (False, True, True)
    """Which levels have self- and cross-attention."""
    unet_groups: int = 8
    text_width: int = 128
    text_layers: int = 2
    max_tokens: int = 20
    crop: int = 96
    """Side of the crops that the decoder is trained on."""
    vae_batch: int = 10
    unet_batch: int = 4
    scenes_per_shard: int = 8
    toy: bool = False
    """Coloured ellipses instead of the capture's heads."""

    @property
    def vae_factor(self) -> int:
        """Pixels per latent position."""
        return 2 ** (len(self.vae_channels) - 1)

    @property
    def latent_size(self) -> int:
        """Side of the square latent."""
        return self.resolution // self.vae_factor

    @classmethod
    def tiny(cls) -> Settings:
        """A few seconds of training on 32-pixel toys."""
        return cls(
            resolution=32,
            latent_channels=8,
            vae_channels=(16, 32),
            vae_groups=4,
            unet_channels=(24, 32),
            unet_heads=(1, 2),
            unet_attention=(True, True),
            unet_groups=4,
            text_width=32,
            text_layers=1,
            crop=32,
            vae_batch=4,
            unet_batch=4,
            scenes_per_shard=4,
            toy=True,
        )


@dataclass(frozen=True)
class Workspace:
    """Where a run keeps its files."""

    root: Path

    @property
    def train_shards(self) -> Path:
        """Rendered training scenes."""
        return self.root / "shards"

    @property
    def open_shards(self) -> Path:
        """The same scenes after the open edits."""
        return self.root / "open"

    @property
    def heldout_shards(self) -> Path:
        """Rendered scenes of identities that are never trained on."""
        return self.root / "heldout"

    @property
    def latents(self) -> Path:
        """Encoded training scenes."""
        return self.root / "latents"

    @property
    def basis(self) -> Path:
        """The VAE's encoder: principal components of small patches."""
        return self.root / "basis.npz"

    @property
    def vae_state(self) -> Path:
        """Everything the VAE stage needs to go on."""
        return self.root / "vae.pt"

    @property
    def unet_state(self) -> Path:
        """Everything the UNet stage needs to go on."""
        return self.root / "unet.pt"
