"""Sizes of the demo editors and the layout of their work folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
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

    The defaults are the shipped InstructPix2Pix, `flow()` is the shipped flow-matching transformer. `tiny()` and `tiny_flow()`
    train in seconds on coloured ellipses, for tests.
    """

    resolution: int = 256
    latent_channels: int = 24
    vae_channels: tuple[int, ...] = (16, 32, 64)
    decoder_channels: tuple[int, ...] | None = None
    """Of the VAE's decoder where they are not `vae_channels`; the autoencoder is then FLUX.2's class."""
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
    transformer_heads: int = 0
    """Attention heads of the flow-matching transformer; none where the editor is a UNet."""
    rope_axes: tuple[int, ...] = (8, 24, 24, 8)
    """Numbers of a head that are rotated by a token's image, row, column and place in the text; a head has their sum."""
    transformer_layers: tuple[int, int] = (1, 4)
    """Blocks with streams of their own for text and image, and blocks with one stream."""
    crop: int = 96
    """Side of the crops that the decoder is trained on."""
    vae_batch: int = 10
    unet_batch: int = 4
    scenes_per_shard: int = 8
    toy: bool = False
    """Coloured ellipses instead of the capture's heads."""

    @property
    def is_flow(self) -> bool:
        """Whether the editor is the flow-matching transformer."""
        return self.transformer_heads > 0

    @property
    def transformer_width(self) -> int:
        """Numbers of a token inside the transformer."""
        return self.transformer_heads * sum(self.rope_axes)

    @property
    def vae_factor(self) -> int:
        """Pixels per latent position."""
        return 2 ** (len(self.vae_channels) - 1)

    @property
    def latent_size(self) -> int:
        """Side of the square latent."""
        return self.resolution // self.vae_factor

    @classmethod
    def flow(cls) -> Settings:
        """The shipped flow-matching transformer: 16 x 16 tokens of 256 numbers."""
        return cls(
            latent_channels=64,
            vae_channels=(16, 48, 64, 144),
            decoder_channels=(16, 32, 64, 96),
            text_width=64,
            text_layers=3,
            max_tokens=20,
            transformer_heads=6,
        )

    @classmethod
    def tiny_flow(cls) -> Settings:
        """The same in a few seconds."""
        return replace(
            cls.tiny(),
            decoder_channels=(16, 16),
            transformer_heads=3,
            text_layers=3,
            transformer_layers=(1, 2),
        )

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
    """Where a run keeps its files. The rendered scenes serve both editors."""

    root: Path
    suffix: str = ""
    """Of the files of one editor."""

    @property
    def train_shards(self) -> Path:
        """Rendered training scenes."""
        return self.root / "shards"

    @property
    def open_shards(self) -> Path:
        """The same scenes after the open edits."""
        return self.root / "open"

    @property
    def further_shards(self) -> Path:
        """The same scenes after named colours, forms and expressions."""
        return self.root / "further"

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
        return self.root / f"basis{self.suffix}.npz"

    @property
    def vae_state(self) -> Path:
        """Everything the VAE stage needs to go on."""
        return self.root / f"vae{self.suffix}.pt"

    @property
    def editor_state(self) -> Path:
        """Everything the stage of the editing network needs to go on."""
        return self.root / ("flow.pt" if self.suffix else "unet.pt")

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's files."""
        return self.root / f"tokenizer{self.suffix}"
