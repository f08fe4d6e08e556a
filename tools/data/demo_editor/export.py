"""Stage `export`: the folder in diffusers' format, half precision, beside it edit3dgs.json."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import Flux2KleinPipeline, StableDiffusionInstructPix2PixPipeline

from edit3dgs_ns.files import folder_written_beside
from edit3dgs_ns.synthetic.named_colors import NAMED_COLORS, PARTS
from tools.data.demo_editor.embedding import checked
from tools.data.demo_editor.further import FURTHER
from tools.data.demo_editor.models import make_scheduler
from tools.data.demo_editor.settings import EDIT_ORDER, OPEN_ORDER, Settings, Workspace
from tools.data.demo_editor.training import load_editor, recipe_for
from tools.data.demo_editor.transformer import make_flow_scheduler, prompt_layers
from tools.data.demo_editor.vae import load_vae

MAX_MEGABYTES = 25.0
EXAMPLE_COLORS = {
    "hair": "green",
    "brows": "white",
    "eyes": "blue",
    "lips": "purple",
    "skin": "blue",
    "shirt": "green",
}
"""The colour of the instruction that stands for a part."""
ABOUT = (
    "{what} trained by tools/data/demo_editor on ray-traced pictures of the open head (CC0). "
    "It knows the edits below on heads like those of `edit3dgs capture`, and nothing else: for photographs and "
    "free instructions use {instead}."
)


def build_pipeline(
    work: Workspace, settings: Settings
) -> Flux2KleinPipeline | StableDiffusionInstructPix2PixPipeline:
    """The pipeline of the current state of a work folder, in float32."""
    tokenizer, loaded = load_editor(work, settings, recipe_for(settings))
    editor: Any = loaded
    if settings.is_flow:
        return Flux2KleinPipeline(
            scheduler=make_flow_scheduler(),
            vae=load_vae(work, settings),
            text_encoder=editor.text,
            tokenizer=tokenizer,
            transformer=editor.transformer,
            is_distilled=True,
        )
    return StableDiffusionInstructPix2PixPipeline(
        vae=load_vae(work, settings),
        text_encoder=editor.text,
        tokenizer=tokenizer,
        unet=editor.unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(work: Workspace, settings: Settings, out: Path, sampling: dict[str, Any]) -> float:
    """Write the folder (replacing an older one at once) and return its size in megabytes.

    Args:
        sampling: recommended `guidance_scale`, `image_guidance_scale` and `steps`.

    Raises:
        ValueError: the folder would be larger than MAX_MEGABYTES.
    """
    pipeline = build_pipeline(work, settings).to(dtype=torch.float16)
    network = "transformer" if settings.is_flow else "unet"
    with folder_written_beside(out) as partial:
        pipeline.save_pretrained(partial, safe_serialization=True)
        weights = (partial / network / "diffusion_pytorch_model.safetensors").read_bytes()
        info = {
            "about": _about(settings),
            "version": hashlib.sha256(weights).hexdigest()[:12],
            "resolution": settings.resolution,
            **sampling,
            **({"text_options": _text_options(settings)} if settings.is_flow else {}),
            "examples": _examples(),
            "instructions": {key: list(edit.instructions) for key, edit in _known().items()},
        }
        (partial / "edit3dgs.json").write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n")
        return checked(partial, MAX_MEGABYTES, "editor")


def _known() -> dict[str, Any]:
    """Every edit that the editor was trained on, or can put together of words that it was trained on, by key."""
    from edit3dgs_ns.synthetic.edits import EDITS, OPEN_EDITS

    some = {key: EDITS[key] for key in EDIT_ORDER} | {key: OPEN_EDITS[key] for key in OPEN_ORDER}
    return some | FURTHER


def _examples() -> dict[str, str]:
    """An instruction for each edit, and for the named colours one for each part."""
    parts = {
        f"{part.name} in {', '.join(part.colors[:-1])} or {part.colors[-1]}": NAMED_COLORS[
            f"{key}_{EXAMPLE_COLORS[key]}"
        ].instructions[0]
        for key, part in PARTS.items()
    }
    return {key: edit.instructions[0] for key, edit in _known().items() if key not in NAMED_COLORS} | parts


def _about(settings: Settings) -> str:
    if settings.is_flow:
        what = "A small flow-matching transformer in the format of FLUX.2 klein,"
        return ABOUT.format(what=what, instead="black-forest-labs/FLUX.2-klein-4B")
    return ABOUT.format(what="A small InstructPix2Pix", instead="timbrooks/instruct-pix2pix")


def _text_options(settings: Settings) -> dict[str, Any]:
    """What Flux2KleinPipeline has to be told of a text encoder that is no Qwen3 of 36 layers."""
    return {
        "max_sequence_length": settings.max_tokens,
        "text_encoder_out_layers": list(prompt_layers(settings)),
    }
