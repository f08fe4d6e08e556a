"""Sizes of the demo CLIP and the layout of its work folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Everything that fixes the shape of the model and of its data.

    The defaults are the shipped CLIP: 3 million weights, 6 MB. `tiny()` trains in seconds on coloured ellipses, for tests.
    """

    stored: int = 112
    """Side of the rendered pictures."""
    resolution: int = 96
    """Side of what the vision tower takes: training crops and scales pictures to it."""
    patch: int = 12
    vision_width: int = 192
    vision_layers: int = 6
    vision_heads: int = 4
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    projection: int = 128
    max_tokens: int = 40
    batch: int = 48
    """Pictures, and captions, in one step of one process."""
    scenes_per_shard: int = 16
    toy: bool = False
    """Coloured ellipses instead of the capture's heads."""

    @classmethod
    def tiny(cls) -> Settings:
        """A few seconds of training on 32-pixel toys."""
        return cls(
            stored=36,
            resolution=32,
            patch=8,
            vision_width=48,
            vision_layers=2,
            text_width=32,
            text_layers=1,
            projection=32,
            batch=24,
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
        return self.root / "scenes"

    @property
    def heldout_shards(self) -> Path:
        """Rendered scenes of people that are never trained on."""
        return self.root / "heldout"

    @property
    def state(self) -> Path:
        """Everything that training needs to go on."""
        return self.root / "clip.pt"
