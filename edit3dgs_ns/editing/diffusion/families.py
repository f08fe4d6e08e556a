"""Pipelines of diffusers that edit a view as an instruction says, and what each needs.

Needs neither PyTorch nor diffusers: a folder is checked against this table before anything of it is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edit3dgs_ns.editing.diffusion.editor_defaults import EditorDefaults
from edit3dgs_ns.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from edit3dgs_ns.editing.framing import Frame

INSTRUCT_PIX2PIX = "StableDiffusionInstructPix2PixPipeline"


@dataclass(frozen=True)
class Call:
    """One view's edit, in the words of no family."""

    prompt: str
    original: Image
    """The view before any edit, of the canvas's size."""
    height: int
    width: int
    settings: Mapping[str, Any]
    """`guidance_scale`, `image_guidance_scale` and `steps`."""
    references: tuple[Image, ...] = ()
    """Further images that the prompt may speak of."""

    @property
    def images(self) -> list[Image]:
        """The original and the references."""
        return [self.original, *self.references]

    @property
    def common(self) -> dict[str, Any]:
        """Arguments that all pipelines name alike."""
        return {"prompt": self.prompt, "num_inference_steps": self.settings["steps"]}

    @property
    def sized(self) -> dict[str, Any]:
        """The same with the size of the result, for those that take it."""
        return self.common | {"height": self.height, "width": self.width}


def _sdxl(call: Call) -> dict[str, Any]:
    scales = {name: call.settings[name] for name in ("guidance_scale", "image_guidance_scale")}
    return call.sized | scales | {"image": call.original}


def _kontext(call: Call) -> dict[str, Any]:
    # The canvas is of a fitting size already; by itself it would move the head to one of a few aspect ratios.
    area = {"max_area": call.height * call.width, "_auto_resize": False}
    return call.sized | area | {"image": call.original, "guidance_scale": call.settings["guidance_scale"]}


def _flux2(call: Call) -> dict[str, Any]:
    scale = call.settings["guidance_scale"]
    return call.sized | {"image": call.images, "guidance_scale": 1.0 if scale is None else scale}


def _qwen(call: Call) -> dict[str, Any]:
    # The pipeline weighs the prompt only where there is a negative one; the model's card gives a blank.
    return call.sized | {
        "image": call.original,
        "negative_prompt": " ",
        "true_cfg_scale": call.settings["guidance_scale"],
    }


def _qwen_plus(call: Call) -> dict[str, Any]:
    return _qwen(call) | {"image": call.images}


def _longcat(call: Call) -> dict[str, Any]:
    return call.common | {"image": call.original, "guidance_scale": call.settings["guidance_scale"]}


@dataclass(frozen=True)
class Variant:
    """Models of a family that want other values than the rest."""

    applies: Callable[[Mapping[str, Any]], bool]
    """Whether a `model_index.json` is of such a model."""
    defaults: EditorDefaults
    load_options: Mapping[str, Any] = field(default_factory=dict)


def _is_cosxl(index: Mapping[str, Any]) -> bool:
    """By its scheduler: `save_pretrained` drops the flag `is_cosxl_edit`."""
    return str((index.get("scheduler") or ["", ""])[1]).startswith("EDM")


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
    variants: tuple[Variant, ...] = ()
    arguments: Callable[[Call], dict[str, Any]] = lambda call: {}
    """Arguments of the pipeline's `__call__` for one view."""
    takes_references: bool = False
    """Whether it takes further images beside the one to edit."""
    area: int | None = None
    """Pixels of the only canvas that it takes, whatever the images' size; None where any size will do."""
    evaluates_twice: bool = False
    """Whether a weight of the prompt above 1 takes a second evaluation, without the prompt."""
    denoiser: str = "transformer"
    """Part that predicts, `unet` or `transformer`."""
    half: str = "bfloat16"
    """Precision on a GPU."""
    load_options: Mapping[str, Any] = field(default_factory=dict)
    """Given to `from_pretrained`."""

    @property
    def is_instruct_pix2pix(self) -> bool:
        """Whether its attention can be shared between views, which needs a loop of ours."""
        return self.class_name == INSTRUCT_PIX2PIX

    def branches(self, guidance_scale: float | None) -> int:
        """Evaluations of the network for one step of a view."""
        if not self.packed:
            return 3
        return 2 if self.evaluates_twice and guidance_scale is not None and guidance_scale > 1 else 1

    @property
    def packed(self) -> bool:
        """Whether the network takes tokens of 2 x 2 latent positions."""
        return self.denoiser == "transformer"

    def latent_channels(self, pipeline: Any) -> int:
        """Channels of the latents at the resolution of the autoencoder."""
        if self.packed:
            return pipeline.transformer.config.in_channels // 4
        return pipeline.vae.config.latent_channels

    def frame(self, height: int, width: int, multiple: int, resolution: int | None) -> Frame:
        """How images lie in the canvas that the model takes."""
        from edit3dgs_ns.editing.framing import Frame

        if self.area is None:
            return Frame.fit(height, width, multiple, resolution)
        self.check_resolution(resolution)
        return Frame.inside(height, width, canvas_of_area(height, width, self.area))

    def check_resolution(self, resolution: int | None) -> None:
        """Raise a ValueError for a resolution where images are always scaled to one area."""
        if self.area is not None and resolution is not None:
            raise UserError(
                f"--pipeline.editor.resolution {resolution}: {self.title} edits at one size alone, {self.area} pixels in all. "
                "Leave it out."
            )

    def fitted(self, index: Mapping[str, Any]) -> Family:
        """The family with the defaults and options of a model with this `model_index.json`."""
        for variant in self.variants:
            if variant.applies(index):
                options = {**self.load_options, **variant.load_options}
                return replace(self, defaults=variant.defaults, load_options=options)
        return self


def canvas_of_area(height: int, width: int, area: int) -> tuple[int, int]:
    """Height and width of a canvas of about an area, in multiples of 32, that has nearly the aspect ratio of an image.

    Pipelines that edit at one area alone compute the size from the ratio of the image that they are given. Of this canvas they
    compute its own size, so that nothing is stretched: the longer side follows from the shorter, and not less than the area.
    """
    shorter = max(32, round(math.sqrt(area * min(height, width) / max(height, width)) / 32) * 32)
    longer = math.ceil(area / shorter / 32) * 32
    return (longer, shorter) if height >= width else (shorter, longer)


_MEGAPIXEL = 1024 * 1024
_SDXL = EditorDefaults(guidance_scale=3.0, image_guidance_scale=1.5, steps=30, resolution=768)
_FLUX2 = EditorDefaults(guidance_scale=4.0, image_guidance_scale=None, steps=50, resolution=1024)
_FAMILIES = (
    Family(
        INSTRUCT_PIX2PIX,
        "InstructPix2Pix",
        "timbrooks/instruct-pix2pix",
        weights=("unet", "vae", "text_encoder"),
        others=("tokenizer", "scheduler"),
        denoiser="unet",
        half="float16",
        defaults=EditorDefaults(guidance_scale=7.5, image_guidance_scale=1.5, steps=20),
        load_options={
            "safety_checker": None,
            "requires_safety_checker": False,
            "feature_extractor": None,
            "image_encoder": None,
        },
    ),
    Family(
        "StableDiffusionXLInstructPix2PixPipeline",
        "InstructPix2Pix on Stable Diffusion XL",
        "diffusers/sdxl-instructpix2pix-768",
        weights=("unet", "vae", "text_encoder", "text_encoder_2"),
        others=("tokenizer", "tokenizer_2", "scheduler"),
        denoiser="unet",
        half="float16",
        arguments=_sdxl,
        defaults=_SDXL,
        variants=(
            Variant(
                _is_cosxl,
                replace(_SDXL, guidance_scale=5.0, steps=20, resolution=1024),
                {"is_cosxl_edit": True},
            ),
        ),
        load_options={"add_watermarker": False},
    ),
    Family(
        "FluxKontextPipeline",
        "FLUX.1 Kontext",
        "black-forest-labs/FLUX.1-Kontext-dev",
        weights=("transformer", "vae", "text_encoder", "text_encoder_2"),
        others=("tokenizer", "tokenizer_2", "scheduler"),
        arguments=_kontext,
        defaults=EditorDefaults(guidance_scale=2.5, image_guidance_scale=None, steps=28, resolution=1024),
    ),
    Family(
        "Flux2KleinPipeline",
        "FLUX.2 klein",
        "black-forest-labs/FLUX.2-klein-4B",
        weights=("transformer", "vae", "text_encoder"),
        others=("tokenizer", "scheduler"),
        evaluates_twice=True,
        arguments=_flux2,
        takes_references=True,
        defaults=_FLUX2,
        variants=(
            Variant(
                lambda index: bool(index.get("is_distilled")),
                replace(_FLUX2, guidance_scale=None, steps=4, share_prediction_until=0.4),
            ),
        ),
    ),
    Family(
        "Flux2Pipeline",
        "FLUX.2",
        "black-forest-labs/FLUX.2-dev",
        weights=("transformer", "vae", "text_encoder"),
        others=("tokenizer", "scheduler"),
        arguments=_flux2,
        takes_references=True,
        defaults=_FLUX2,
    ),
    Family(
        "QwenImageEditPipeline",
        "Qwen-Image-Edit",
        "Qwen/Qwen-Image-Edit",
        weights=("transformer", "vae", "text_encoder"),
        others=("tokenizer", "processor", "scheduler"),
        arguments=_qwen,
        evaluates_twice=True,
        area=_MEGAPIXEL,
        defaults=EditorDefaults(guidance_scale=4.0, image_guidance_scale=None, steps=50),
    ),
    Family(
        "QwenImageEditPlusPipeline",
        "Qwen-Image-Edit-Plus",
        "Qwen/Qwen-Image-Edit-2509",
        weights=("transformer", "vae", "text_encoder"),
        others=("tokenizer", "processor", "scheduler"),
        arguments=_qwen_plus,
        evaluates_twice=True,
        takes_references=True,
        area=_MEGAPIXEL,
        defaults=EditorDefaults(guidance_scale=4.0, image_guidance_scale=None, steps=40),
    ),
    Family(
        "LongCatImageEditPipeline",
        "LongCat-Image-Edit",
        "meituan-longcat/LongCat-Image-Edit",
        weights=("transformer", "vae", "text_encoder"),
        others=("tokenizer", "text_processor", "scheduler"),
        arguments=_longcat,
        evaluates_twice=True,
        area=_MEGAPIXEL,
        defaults=EditorDefaults(guidance_scale=4.5, image_guidance_scale=None, steps=50),
    ),
)


def no_shared_attention(model: str, title: str) -> UserError:
    """The error to raise where views would have to agree by the attention of a family that has none to share."""
    return UserError(
        "--pipeline.editor.correspondence epipolar needs the attention of an InstructPix2Pix on Stable Diffusion 1, and "
        f"{model} is {title}. Choose rig or none."
    )


def no_references(model: str, title: str) -> UserError:
    """The error to raise where an editor is given references that it does not take.

    Args:
        model: its name.
        title: what it is.
    """
    taking = " or ".join(known.title for known in _FAMILIES if known.takes_references)
    return UserError(
        f"--pipeline.editor.reference: {model} is {title}, which takes no image beside the one to edit. Leave it out, "
        f"give a model of {taking}, or an IP-Adapter to InstructPix2Pix (--pipeline.editor.ip-adapter)."
    )


FAMILIES: Mapping[str, Family] = {family.class_name: family for family in _FAMILIES}
"""All families by class name."""
