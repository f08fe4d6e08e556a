"""Pipelines of diffusers that edit a view as an instruction says, and what each needs.

Needs neither PyTorch nor diffusers: a folder is checked against this table before anything of it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edit3dgs_ns.editing.diffusion.editor_defaults import EditorDefaults

INSTRUCT_PIX2PIX = "StableDiffusionInstructPix2PixPipeline"


@dataclass(frozen=True)
class Family:
    """One class of pipelines."""

    class_name: str
    """As `model_index.json` names it (`_class_name`)."""
    title: str
    """For messages."""
    example: str
    """Hub id of a model of this family."""
    weights: tuple[str, ...]
    """Folders that hold safetensors."""
    others: tuple[str, ...]
    """Folders without weights."""
    defaults: EditorDefaults
    """What its models' cards recommend."""
    denoiser: str = "transformer"
    """Part that predicts, `unet` or `transformer`."""

    @property
    def is_instruct_pix2pix(self) -> bool:
        """Whether its attention can be shared between views, which needs a loop of ours."""
        return self.class_name == INSTRUCT_PIX2PIX

    def defaults_for(self, index: Mapping[str, Any]) -> EditorDefaults:
        """The defaults of a model with this `model_index.json`."""
        return self.defaults


_FAMILIES = (
    Family(
        INSTRUCT_PIX2PIX,
        "InstructPix2Pix",
        "timbrooks/instruct-pix2pix",
        weights=("unet", "vae", "text_encoder"),
        others=("tokenizer", "scheduler"),
        denoiser="unet",
        defaults=EditorDefaults(guidance_scale=7.5, image_guidance_scale=1.5, steps=20),
    ),
)
FAMILIES: Mapping[str, Family] = {family.class_name: family for family in _FAMILIES}
"""All families by class name."""
