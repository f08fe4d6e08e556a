"""Options of masks from words. Imports nothing heavy: every `ns-*` command reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional

from edit3dgs_ns.errors import UserError

OPTION = "--pipeline.grounded-sam"
"""What the options below are called on the command line."""
OTHERWISE = "Or take the masks from the avatar itself: --pipeline.masks rig"
DETECTOR = "IDEA-Research/grounding-dino-base"
SEGMENTER = "facebook/sam2.1-hiera-large"
TOKENIZER = "google-bert/bert-base-uncased"
SAM2_INSTALL = "SAM2_BUILD_CUDA=0 pip install sam2==1.1.0"
"""Its CUDA extension fills holes in masks, which is not asked for here."""
GROUNDINGDINO_INSTALL = "pip install addict yapf pycocotools && pip install --no-deps groundingdino-py==0.4.0"
"""Its own requirements would bring a second OpenCV; see `grounding_dino_package`."""

Backend = Literal["transformers", "groundingdino"]


@dataclass
class GroundedSamOptions:
    """Grounding DINO finds boxes for words, SAM 2 turns boxes into masks (--pipeline.masks grounded-sam)."""

    detector: str = DETECTOR
    """Grounding DINO: a hub id, a folder in transformers' format, or one of its authors' checkpoint files (a path, or
    `owner/name/file.pth` on the hub)."""
    detector_backend: Backend = "transformers"
    """What runs Grounding DINO: `transformers`, or its authors' package `groundingdino` (groundingdino-py). Both take
    the same weights and find the same boxes."""
    tokenizer: str = TOKENIZER
    """Words of the detector when its weights are a checkpoint file, which has none: a hub id or a folder with
    vocab.txt."""
    segmenter: str = SEGMENTER
    """SAM 2: a hub id, a folder with one checkpoint, or a checkpoint file as its authors publish them (SAM 2 and
    2.1, tiny to large)."""
    box_threshold: float = 0.35
    """Confidence, from 0 to 1, that a box needs to count as found."""
    text_threshold: float = 0.25
    """Confidence that a word of a phrase needs for a box to be called by that phrase; a box called by none does not
    count."""
    resolution: Optional[int] = None  # noqa: UP045
    """Shorter side in pixels that views are scaled to for the detector; the detector's own if not given (800)."""
    views_per_forward: int = 4
    """Views that go through the models together; less needs less memory."""
    device: str = "auto"
    """Device of both models: `auto` is that of the avatar."""
    cache: Optional[Path] = None  # noqa: UP045
    """Folder that keeps masks for later runs; `edit3dgs/masks` in the user's cache folder (XDG_CACHE_HOME) if not
    given."""

    def check(self) -> None:
        """Raise a ValueError for numbers out of range."""
        for name in ("box_threshold", "text_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(
                    f"{OPTION}.{name.replace('_', '-')} {getattr(self, name)}: expected a number between 0 and 1."
                )
        if self.views_per_forward < 1:
            raise UserError(f"{OPTION}.views-per-forward {self.views_per_forward}: expected at least 1.")
        if self.resolution is not None and self.resolution < 32:
            raise UserError(f"{OPTION}.resolution {self.resolution}: expected at least 32 pixels.")
