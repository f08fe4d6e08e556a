"""One edit at Stable Diffusion's real size with random weights: what agreement adds to its time and memory.

    python -m tools.measure.benchmarks.sd_size --correspondence rig       4 views of 512 x 512, 3 steps, no guidance

Prints one line of JSON. Random weights cost what trained ones do; prompts go through a small text encoder of the real width.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from tools.measure.benchmarks.attention_memory import MIB, peak, start_measuring
from tools.measure.benchmarks.ball import ball_request

UNET = {
    "in_channels": 8,
    "out_channels": 4,
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
"""timbrooks/instruct-pix2pix: 860 million parameters."""
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}


def random_editor(correspondence: str, device: torch.device, scale: int = 1) -> Any:
    """An InstructPix2Pix of the real architecture in the precision that `auto` chooses, with random weights.

    Args:
        correspondence: of its views: "rig", "epipolar" or "none".
        device: where it runs.
        scale: divides all widths: for trying it out.
    """
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from edit3dgs_ns.editing.agreement.sharing import SharingOptions
    from edit3dgs_ns.editing.diffusion.editor_defaults import EditorDefaults
    from edit3dgs_ns.editing.diffusion.instruct_pix2pix import InstructPix2Pix
    from edit3dgs_ns.editing.diffusion.loading import multiplies_bfloat16
    from edit3dgs_ns.editing.diffusion.model_folder import find_model

    def narrowed(settings: dict[str, Any]) -> dict[str, Any]:
        widths = tuple(width // scale for width in settings["block_out_channels"])
        return settings | {"block_out_channels": widths, "norm_num_groups": max(32 // scale, 1)}

    on_gpu = device.type == "cuda"
    half = torch.float16 if on_gpu else torch.bfloat16 if multiplies_bfloat16() else torch.float32
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(**narrowed(UNET)).to(device, half)
    vae = diffusers.AutoencoderKL(**narrowed(VAE)).to(device, half if on_gpu else torch.float32)
    if not on_gpu:
        unet.to(memory_format=torch.channels_last)
    tokenizer = CLIPTokenizer.from_pretrained(find_model("demo") / "tokenizer", local_files_only=True)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    words = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=UNET["cross_attention_dim"], num_hidden_layers=1, **ends
    )
    return InstructPix2Pix(
        unet,
        vae,
        CLIPTextModel(words).to(device, half),
        tokenizer,
        diffusers.DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=False,
        ),
        name="random weights",
        defaults=EditorDefaults(guidance_scale=1.0, image_guidance_scale=1.0),
        sharing=SharingOptions(correspondence),
        views_per_forward=4 if on_gpu else 1,
        device=device,
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Loads, warms up with one view, and edits the batch."""
    device = torch.device(options.device)
    editor = random_editor(options.correspondence, device, options.scale)
    editor.edit(ball_request(1 if options.correspondence == "none" else 2, options.pixels, steps=1))
    request = ball_request(options.views, options.pixels, steps=options.steps)
    start_measuring(device)
    started = time.perf_counter()
    result = editor.edit(request)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "peak_mib": round(peak(device) / MIB),
        "evaluations": result.unet_evaluations,
        "dtype": result.settings["dtype"],
    } | vars(options)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of `run`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("views", 4), ("pixels", 512), ("steps", 3), ("scale", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--correspondence", choices=("none", "rig", "epipolar"), default="rig")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    print(json.dumps(run(parse())))
