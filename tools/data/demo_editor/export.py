"""Stage `export`: the folder in diffusers' format, half precision, beside it edit3dgs.json."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from diffusers import StableDiffusionInstructPix2PixPipeline

from edit3dgs_ns.files import folder_written_beside
from tools.data.demo_editor.embedding import checked
from tools.data.demo_editor.models import make_scheduler
from tools.data.demo_editor.settings import EDIT_ORDER, OPEN_ORDER, Settings, Workspace
from tools.data.demo_editor.unet import load_editor
from tools.data.demo_editor.vae import load_vae

MAX_MEGABYTES = 25.0
ABOUT = (
    "A small InstructPix2Pix trained by tools/data/demo_editor on ray-traced pictures of the open head (CC0). "
    "It knows the edits below on heads like those of `edit3dgs capture`, and nothing else: for photographs and "
    "free instructions use timbrooks/instruct-pix2pix."
)


def build_pipeline(work: Workspace, settings: Settings) -> StableDiffusionInstructPix2PixPipeline:
    """The pipeline of the current state of a work folder, in float32."""
    tokenizer, editor = load_editor(work, settings)
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


def export(
    work: Workspace, settings: Settings, out: Path, guidance: float, image_guidance: float, steps: int
) -> float:
    """Write the folder (replacing an older one at once) and return its size in megabytes.

    Raises:
        ValueError: the folder would be larger than MAX_MEGABYTES.
    """
    from edit3dgs_ns.synthetic.edits import EDITS, OPEN_EDITS

    pipeline = build_pipeline(work, settings).to(dtype=torch.float16)
    with folder_written_beside(out) as partial:
        pipeline.save_pretrained(partial, safe_serialization=True)
        weights = (partial / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
        info = {
            "about": ABOUT,
            "version": hashlib.sha256(weights).hexdigest()[:12],
            "resolution": settings.resolution,
            "guidance_scale": guidance,
            "image_guidance_scale": image_guidance,
            "steps": steps,
            "instructions": {key: list(EDITS[key].instructions) for key in EDIT_ORDER}
            | {key: list(OPEN_EDITS[key].instructions) for key in OPEN_ORDER},
        }
        (partial / "edit3dgs.json").write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n")
        return checked(partial, MAX_MEGABYTES, "editor")
