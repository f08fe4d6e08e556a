"""Finding an editor's weights, and saying clearly what to do when they are not there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edit3dgs_ns.editing.agreement.sharing import SharingOptions
from edit3dgs_ns.editing.diffusion.editor_defaults import EditorDefaults
from edit3dgs_ns.editing.diffusion.instruct_pix2pix import InstructPix2Pix
from edit3dgs_ns.errors import MissingFileError, UserError

if TYPE_CHECKING:
    import torch

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parents[1] / "demo_editor"
DEFAULTS_FILE = "edit3dgs.json"
OPTION = "--pipeline.editor.model"

Scheduler = Literal["ddim", "shipped"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Offload = Literal["none", "model", "layers"]

_PARTS = ("unet", "vae", "text_encoder")
_ORDER_OF_USE = ("text_encoder", "unet", "vae")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_OTHERWISE = f"Or use the small embedded editor, which knows a few instructions: {OPTION} demo"


def load_editor(
    model: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: Dtype = "auto",
    scheduler: Scheduler = "ddim",
    views_per_forward: int = 4,
    resolution: int | None = None,
    sharing: SharingOptions | None = None,
    attention_slicing: bool = False,
    offload: Offload = "none",
) -> InstructPix2Pix:
    """An InstructPix2Pix from the hub, from a folder in diffusers' format, or the embedded one.

    Only safetensors are read, and only classes of diffusers and transformers are built. `HF_HUB_OFFLINE=1`
    keeps it off the network.

    Args:
        model: hub id, folder, or `demo`.
        device: where it runs.
        dtype: `auto` is float16 on CUDA and float32 elsewhere.
        scheduler: `ddim` as in InstructPix2Pix's use for 3D, or the one `shipped` with the model.
        views_per_forward: views denoised together.
        resolution: longer side in pixels that images are scaled to; None for what `edit3dgs.json` says, else
            as they are.
        sharing: how the views of a batch are made to agree; each is edited alone if not given.
        attention_slicing: compute attention one head at a time.
        offload: keep whole `model`s or single `layers` in main memory while they are not needed.

    Raises:
        FileNotFoundError: the weights are not there or not complete.
        ValueError: `model` is neither, or not an InstructPix2Pix; or the device cannot do what is asked.
    """
    import torch

    device = torch.device(device)
    check_device(device, offload)
    source = check_model(model)
    parts = _read_parts(source, _precision(dtype, device))
    if attention_slicing:
        parts["unet"].set_attention_slice("max")
    free_memory = _place(parts, device, offload)
    return InstructPix2Pix(
        parts["unet"],
        parts["vae"],
        parts["text_encoder"],
        parts["tokenizer"],
        _pick_scheduler(parts["scheduler"], scheduler),
        name=str(model),
        defaults=_defaults(source, resolution),
        sharing=sharing,
        views_per_forward=views_per_forward,
        device=device,
        free_memory=free_memory,
    )


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


def check_model(model: str | Path) -> Path | str:
    """`find_model`, and a folder is complete and holds no code of its own. Reads no weights and uses no network."""
    source = find_model(model)
    if isinstance(source, Path):
        _check_folder(source)
    return source


def find_model(model: str | Path) -> Path | str:
    """The folder that `model` means, or else the hub id that it is.

    Raises:
        FileNotFoundError: it looks like a folder, and there is none.
        ValueError: it looks like nothing.
    """
    text = str(model).strip()
    if text == DEMO:
        return DEMO_FOLDER
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if isinstance(model, str) and _HUB_ID.fullmatch(text) and not text.startswith("."):
        return text
    if not text:
        raise UserError(
            f"{OPTION} is empty. Give a hub id such as timbrooks/instruct-pix2pix or a folder. {_OTHERWISE}"
        )
    raise MissingFileError(
        f"{OPTION} {text}: there is no such folder, and it is no hub id (owner/name). Give a folder in diffusers' "
        f"format or a hub id such as timbrooks/instruct-pix2pix. {_OTHERWISE}"
    )


def _check_folder(folder: Path) -> None:
    """Name what is missing in a model folder, and refuse classes from outside diffusers and transformers."""
    index = folder / "model_index.json"
    if not index.is_file():
        hint = (
            "The package was installed without its data"
            if folder == DEMO_FOLDER
            else "Expected a folder in diffusers' format"
        )
        raise MissingFileError(
            f"{OPTION} {folder}: model_index.json is missing. {hint}. {'' if folder == DEMO_FOLDER else _OTHERWISE}".strip()
        )
    missing = [f"{part}/" for part in (*_PARTS, "tokenizer", "scheduler") if not (folder / part).is_dir()]
    missing += [
        f"{part}/*.safetensors"
        for part in _PARTS
        if (folder / part).is_dir() and not any((folder / part).glob("*.safetensors"))
    ]
    if missing:
        raise MissingFileError(
            f"{OPTION} {folder}: {', '.join(missing)} missing. Expected the folders unet, vae, text_encoder (with "
            f"safetensors), tokenizer and scheduler, as diffusers' save_pretrained writes them. {_OTHERWISE}"
        )
    for part, entry in _read_json(index).items():
        library = entry[0] if isinstance(entry, list) and entry else None
        if library not in (None, "diffusers", "transformers", "stable_diffusion"):
            raise UserError(
                f"{index}: the part {part!r} wants code from {library!r}; only diffusers and transformers are accepted."
            )


def _read_parts(source: Path | str, precision: torch.dtype) -> dict[str, Any]:
    # An instance of the pipeline is built for its reading alone: it knows the folder format and shares hub
    # downloads.
    from diffusers import StableDiffusionInstructPix2PixPipeline
    from diffusers.utils import logging as diffusers_logging

    verbosity, bar = diffusers_logging.get_verbosity(), diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.set_verbosity_error()
    if isinstance(source, Path):
        diffusers_logging.disable_progress_bar()
    try:
        pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
            source,
            torch_dtype=precision,
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
            feature_extractor=None,
            image_encoder=None,
            local_files_only=isinstance(source, Path),
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise _explain(source, error) from error
    finally:
        diffusers_logging.set_verbosity(verbosity)
        if bar:
            diffusers_logging.enable_progress_bar()
    return dict(pipeline.components)


def _place(parts: dict[str, Any], device: torch.device, offload: Offload) -> Callable[[], None] | None:
    """Put the models on the device, or let accelerate bring them there when they are used.

    Returns:
        What brings them back to main memory after an edit, where they do not go back by themselves.
    """
    models = [parts[name] for name in _ORDER_OF_USE]
    if offload == "none":
        for model in models:
            model.to(device)
        return None
    from accelerate import cpu_offload, cpu_offload_with_hook

    if offload == "layers":
        for model in models:
            cpu_offload(model, device, offload_buffers=True)
        return None
    hooks: list[Any] = []
    for model in models:
        _, hook = cpu_offload_with_hook(model, device, prev_module_hook=hooks[-1] if hooks else None)
        hooks.append(hook)

    def free_memory() -> None:
        for hook in hooks:
            hook.offload()

    return free_memory


def _explain(source: Path | str, error: Exception) -> Exception:
    reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300] if str(error).strip() else 'no details'}"
    if isinstance(source, Path):
        return ValueError(
            f"{OPTION} {source} cannot be loaded as an InstructPix2Pix in diffusers' format ({reason}). {_OTHERWISE}"
        )
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    from huggingface_hub.constants import HF_HUB_CACHE

    why = (
        "HF_HUB_OFFLINE is set" if offline else "the download failed: no network, no such model, or no access"
    )
    return FileNotFoundError(
        f"{OPTION} {source}: the weights are not in the cache {HF_HUB_CACHE}, and {why} ({reason}).\n"
        f"Download them once where there is a network (hf download {source}), or give the folder of a copy: "
        f"{OPTION} /path/to/folder.\n{_OTHERWISE}"
    )


def _pick_scheduler(shipped: Any, wanted: Scheduler) -> Any:
    """DDIM with the shipped noise schedule, or the shipped scheduler."""
    from diffusers import DDIMScheduler

    if wanted == "shipped" or isinstance(shipped, DDIMScheduler):
        return shipped
    # Latents are not confined to [-1, 1], and Stable Diffusion was trained down to the first step, not to
    # alpha 1.
    latent = {key: False for key in ("clip_sample", "set_alpha_to_one") if key not in shipped.config}
    return DDIMScheduler.from_config(shipped.config, **latent)


def editor_version(model: str | Path) -> str:
    """What the `edit3dgs.json` of a folder says of its weights' version; empty where it says nothing.

    Raises:
        ValueError, FileNotFoundError: as `check_model`.
    """
    source = find_model(model)
    path = source / DEFAULTS_FILE if isinstance(source, Path) else None
    return str(_read_json(path).get("version", "")) if path is not None and path.is_file() else ""


def taught_edits(model: str | Path) -> tuple[str, ...]:
    """The edits that the `edit3dgs.json` of a folder lists; none where the model takes any sentence.

    Raises:
        ValueError, FileNotFoundError: as `check_model`.
    """
    return tuple(_defaults(find_model(model), None).instructions)


def _defaults(source: Path | str, resolution: int | None) -> EditorDefaults:
    """What `edit3dgs.json` in the folder says, over the usual values of InstructPix2Pix."""
    path = source / DEFAULTS_FILE if isinstance(source, Path) else None
    given = _read_json(path) if path is not None and path.is_file() else {}
    usual = EditorDefaults()
    try:
        return EditorDefaults(
            guidance_scale=float(given.get("guidance_scale", usual.guidance_scale)),
            image_guidance_scale=float(given.get("image_guidance_scale", usual.image_guidance_scale)),
            steps=int(given.get("steps", usual.steps)),
            resolution=resolution or (int(given["resolution"]) if given.get("resolution") else None),
            instructions={
                str(edit): tuple(map(str, wordings))
                for edit, wordings in given.get("instructions", {}).items()
            },
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: {error}. Expected numbers for guidance_scale, image_guidance_scale, steps and resolution, and "
            "instructions as {edit: [wordings]}."
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found a {type(content).__name__}.")
    return content


def _precision(dtype: Dtype, device: torch.device) -> torch.dtype:
    import torch

    if dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return getattr(torch, dtype)
