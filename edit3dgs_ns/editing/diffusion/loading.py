"""Loads an editor from the hub or a folder onto a device; says what to do where the weights are not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edit3dgs_ns.capture.compositing import composite_over_white
from edit3dgs_ns.capture.images import read_image
from edit3dgs_ns.editing.agreement.sharing import SharingOptions
from edit3dgs_ns.editing.diffusion.families import Family, no_references, no_shared_attention
from edit3dgs_ns.editing.diffusion.instruct_pix2pix import InstructPix2Pix
from edit3dgs_ns.editing.diffusion.ip_adapter import read_ip_adapter
from edit3dgs_ns.editing.diffusion.model_folder import (
    INDEX_FILE,
    OPTION,
    OTHERWISE,
    check_index,
    check_model,
    defaults_of,
    find_model,
    read_json,
)
from edit3dgs_ns.editing.diffusion.pipeline_editor import PipelineEditor
from edit3dgs_ns.errors import MissingFileError, UserError

if TYPE_CHECKING:
    import torch

Scheduler = Literal["auto", "ddim", "shipped"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Offload = Literal["none", "model", "layers"]


def load_editor(
    model: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: Dtype = "auto",
    scheduler: Scheduler = "auto",
    views_per_forward: int = 4,
    resolution: int | None = None,
    sharing: SharingOptions | None = None,
    attention_slicing: bool = False,
    offload: Offload = "none",
    references: Sequence[Path] = (),
    ip_adapter: Path | None = None,
    detail: float = 0.0,
) -> InstructPix2Pix | PipelineEditor:
    """An editing model from the hub, from a folder in diffusers' format, or one of the two embedded ones.

    Only safetensors are read, and only classes of diffusers and transformers are built. `HF_HUB_OFFLINE=1`
    keeps it off the network.

    Args:
        model: hub id, folder, or the embedded `demo` or `demo-flow`.
        device: where it runs.
        dtype: of the weights. `auto` is the half precision of the model's family on CUDA; on processors that multiply bfloat16
            natively, bfloat16 for the UNet of InstructPix2Pix (latents and autoencoder in float32); float32 otherwise.
        scheduler: `ddim`, the one `shipped` with the model, or `auto`: DDIM for InstructPix2Pix, as in its use for 3D.
        views_per_forward: views denoised together by InstructPix2Pix; other families take one at a time.
        resolution: longer side in pixels that images are scaled to; None for what `edit3dgs.json` says, else
            as they are.
        sharing: how the views of a batch are made to agree; each is edited alone if not given.
        attention_slicing: compute attention one head at a time.
        offload: keep whole `model`s or single `layers` in main memory while they are not needed.
        references: images that the prompt may speak of, for families that take several; or one for an IP-Adapter.
        ip_adapter: weights of an IP-Adapter for InstructPix2Pix.
        detail: how much of the originals' detail that the autoencoder loses is given back where the edit is small, from 0 to 1.

    Raises:
        FileNotFoundError: the weights are not there or not complete.
        ValueError: `model` is neither, or of no family that is known; or the device cannot do what is asked.
    """
    import torch

    device = torch.device(device)
    check_device(device, offload)
    source = check_model(model, references, ip_adapter)
    index = read_json(source / INDEX_FILE) if isinstance(source, Path) else _hub_index(source)
    family = check_index(index, source).fitted(index)
    if references and not family.takes_references and ip_adapter is None:
        raise no_references(str(model), family.title)
    if sharing is not None and sharing.correspondence == "epipolar" and not family.is_instruct_pix2pix:
        raise no_shared_attention(str(model), family.title)
    pictures = [_read_reference(path) for path in references]
    defaults = defaults_of(source, resolution, family.defaults)
    precision = _precision(dtype, device, family)
    pipeline = _read_pipeline(source, family, precision)
    pipeline.scheduler = _pick_scheduler(pipeline.scheduler, scheduler, family)
    if attention_slicing:
        getattr(pipeline, family.denoiser).set_attention_slice("max")
    image_prompt = (
        read_ip_adapter(pipeline, ip_adapter, pictures[0], device) if ip_adapter is not None else None
    )
    in_bfloat16 = isinstance(precision, dict)
    if family.is_instruct_pix2pix and device.type == "cpu":
        pipeline.unet.to(memory_format=torch.channels_last)  # a tenth faster there
    free_memory = _place(pipeline, device, offload)
    if not family.is_instruct_pix2pix:
        return PipelineEditor(
            pipeline,
            family,
            name=str(model),
            defaults=defaults,
            sharing=sharing,
            device=device,
            free_memory=free_memory,
            references=pictures,
            detail=detail,
        )
    return InstructPix2Pix(
        pipeline.unet,
        pipeline.vae,
        pipeline.text_encoder,
        pipeline.tokenizer,
        pipeline.scheduler,
        name=str(model),
        defaults=defaults,
        sharing=sharing,
        views_per_forward=views_per_forward,
        # In bfloat16 the bits depend on how many views go together, and workers would not give the images of one process.
        full_forwards=in_bfloat16,
        image_prompt=image_prompt,
        device=device,
        free_memory=free_memory,
        detail=detail,
    )


def _read_reference(path: Path) -> Any:
    """A reference as an image of 8 bits, on white where it is transparent."""
    from PIL import Image

    image, alpha = read_image(path)
    return Image.fromarray(image if alpha is None else composite_over_white(image, alpha))


def check_device(device: torch.device, offload: Offload) -> None:
    """Raise a ValueError when there is no such device, or it cannot do what is asked of it."""
    import torch

    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"--pipeline.editor.device {device}: PyTorch finds no CUDA device. Choose cpu, or auto for the avatar's."
        )
    if device.type == "cpu" and offload != "none":
        raise UserError(
            f"--pipeline.editor.offload {offload} frees the memory of a CUDA device, and the device is cpu. Leave it at "
            "none."
        )


def download_index(model: str | Path) -> None:
    """Downloads the `model_index.json` of a hub id, so that all is known of it that can be known without weights.

    Raises:
        FileNotFoundError: there is no such model, or no network.
    """
    source = find_model(model)
    if not isinstance(source, Path):
        _hub_index(source)


def _hub_index(hub_id: str) -> dict[str, Any]:
    """The `model_index.json` of a hub id, which says what it is before weights, often tens of gigabytes, are downloaded."""
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(hub_id, INDEX_FILE)
    except (OSError, ValueError) as error:
        raise _explained(hub_id, error) from error
    return read_json(Path(path))


def _read_pipeline(
    source: Path | str, family: Family, precision: torch.dtype | dict[str, torch.dtype]
) -> Any:
    import diffusers
    from diffusers.utils import logging as diffusers_logging

    verbosity, bar = diffusers_logging.get_verbosity(), diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.set_verbosity_error()
    if isinstance(source, Path):
        diffusers_logging.disable_progress_bar()
    try:
        return getattr(diffusers, family.class_name).from_pretrained(
            source,
            torch_dtype=precision,
            use_safetensors=True,
            local_files_only=isinstance(source, Path),
            **family.load_options,
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise _explained(source, error, family.title) from error
    finally:
        diffusers_logging.set_verbosity(verbosity)
        if bar:
            diffusers_logging.enable_progress_bar()


def _place(pipeline: Any, device: torch.device, offload: Offload) -> Callable[[], None] | None:
    """Put the models on the device, or let accelerate bring them there when they are used.

    Returns:
        What brings them back to main memory after an edit, where they do not go back by themselves.
    """
    names = pipeline.model_cpu_offload_seq.split("->")
    models = [part for part in (getattr(pipeline, name, None) for name in names) if part is not None]
    if offload == "none":
        for model in models:
            model.to(device)
        return None
    from accelerate import cpu_offload, cpu_offload_with_hook

    if offload == "layers":
        for model in models:
            cpu_offload(model, device)
        return None
    hooks: list[Any] = []
    for model in models:
        _, hook = cpu_offload_with_hook(model, device, prev_module_hook=hooks[-1] if hooks else None)
        hooks.append(hook)

    def free_memory() -> None:
        for hook in hooks:
            hook.offload()

    return free_memory


def _explained(source: Path | str, error: Exception, title: str = "editing model") -> UserError:
    """The error to raise where a model cannot be loaded: which one, why, and what to do."""
    reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300] if str(error).strip() else 'no details'}"
    if isinstance(source, Path):
        return UserError(
            f"{OPTION} {source} cannot be loaded as {title} in diffusers' format ({reason}). {OTHERWISE}"
        )
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    from huggingface_hub.constants import HF_HUB_CACHE

    why = (
        "HF_HUB_OFFLINE is set" if offline else "the download failed: no network, no such model, or no access"
    )
    return MissingFileError(
        f"{OPTION} {source}: the weights are not in the cache {HF_HUB_CACHE}, and {why} ({reason}).\n"
        f"Download them once where there is a network (hf download {source}), or give the folder of a copy: "
        f"{OPTION} /path/to/folder.\n{OTHERWISE}"
    )


def _pick_scheduler(shipped: Any, wanted: Scheduler, family: Family) -> Any:
    """DDIM with the shipped noise schedule, or the shipped scheduler."""
    from diffusers import DDIMScheduler

    if wanted == "auto":
        wanted = "ddim" if family.is_instruct_pix2pix else "shipped"
    if wanted == "shipped" or isinstance(shipped, DDIMScheduler):
        return shipped
    if not hasattr(shipped, "alphas_cumprod"):
        raise UserError(
            f"--pipeline.editor.scheduler ddim: the model is {family.title} with the scheduler {type(shipped).__name__}, whose "
            "noise is not DDIM's. Leave it at auto."
        )
    # Latents are not confined to [-1, 1], and Stable Diffusion was trained down to the first step, not to
    # alpha 1.
    latent = {key: False for key in ("clip_sample", "set_alpha_to_one") if key not in shipped.config}
    return DDIMScheduler.from_config(shipped.config, **latent)


def _precision(dtype: Dtype, device: torch.device, family: Family) -> torch.dtype | dict[str, torch.dtype]:
    """Of all weights, or by component."""
    import torch

    if dtype != "auto":
        return getattr(torch, dtype)
    if device.type == "cuda":
        return getattr(torch, family.half)
    if family.is_instruct_pix2pix and multiplies_bfloat16():
        # The autoencoder is a small share of the work, and its pixels need more than bfloat16's eight bits.
        return {"default": torch.float32, family.denoiser: torch.bfloat16}
    return torch.float32


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for it; without them bfloat16 is slower than float32."""
    import torch

    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16"))
