"""Options of `edit3dgs` besides the pipeline's own: the editor's, what can be refused at once, and the base
training's rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Optional

if TYPE_CHECKING:
    from edit3dgs_ns.pipeline import EditPipelineConfig


@dataclass
class EditorConfig:
    """The diffusion model and how it is used."""

    model: str = "timbrooks/instruct-pix2pix"
    """InstructPix2Pix to edit with: a hub id, a folder in diffusers' format, or `demo` for the small embedded
    one."""
    guidance_scale: Optional[float] = None  # noqa: UP045
    """Weight of the sentence; the model's own if not given (7.5)."""
    image_guidance_scale: Optional[float] = None  # noqa: UP045
    """Weight of the original image; the model's own if not given (1.5)."""
    steps: Optional[int] = None  # noqa: UP045
    """Denoising steps from pure noise; the model's own if not given (20). Less noise takes its share of
    them."""
    resolution: Optional[int] = None  # noqa: UP045
    """Longer side in pixels that images are scaled to for the model; the model's own or the images' if not
    given."""
    scheduler: Literal["ddim", "shipped"] = "ddim"
    """DDIM, or the scheduler shipped with the model."""
    views_per_forward: int = 4
    """Views that go through the diffusion model together; less needs less memory. Halved by itself when a CUDA
    device runs out of memory."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Precision of the diffusion model: `auto` is float16 on CUDA, else float32."""
    device: str = "auto"
    """Device of the diffusion model: `auto` is that of the avatar."""
    shared_noise: bool = True
    """All views start from the same noise, so that what the noise decides agrees between them."""
    correspondence: Literal["none", "epipolar", "rig"] = "rig"
    """How the views of a batch agree: key views look at each other, and the others take over what these found
    at the same spot of the head. `rig`: the spot is known from the avatar, across cameras and timesteps;
    `epipolar`: it is searched by its looks, on the line where the key view must show it; `none`: each view is
    edited alone."""
    views_per_key: int = 5
    """At each denoising step one view in so many neighbours is a key view; of three views or more two are."""
    self_attention_below: int = 100
    """Below this diffusion timestep (of usually 1000) each view is denoised alone; 0 for never."""
    share_prediction_until: int = 600
    """Down to this diffusion timestep a spot of the head is predicted the same in all views that show it: the look is
    decided together. Below it every view makes its own detail. 1000 for never."""
    keep: str = "none"
    """Parts of the head, separated by commas, that keep what their originals show, or `none`: `eyes,mouth` keeps the
    expression. Any region of the rig, an unknown name lists them; with --pipeline.masks grounded-sam any words:
    "the hat. the glasses"."""
    only: str = "none"
    """Parts of the head that alone are edited, like `hair`; `none` edits all."""
    keep_strength: float = 1.0
    """How much of the original is put back where it is kept, from 0 to 1."""
    keep_from: float = 0.5
    """Share of a round's denoising steps after which the original begins to be put back."""
    keep_until: float = 1.0
    """Share of a round's denoising steps after which it is put back no more."""
    attention_slicing: bool = False
    """Compute attention one head at a time. Slower; only for devices where PyTorch's own memory-saving attention
    is not available."""
    offload: Literal["none", "model", "layers"] = "none"
    """Keep the diffusion model's parts in main memory while they are not needed: whole `model`s (text encoder,
    UNet, VAE) or single `layers` (much slower, needs least memory). CUDA only."""


def check_options(config: EditPipelineConfig, world_size: int = 1) -> None:
    """Raise a ValueError or FileNotFoundError for what can be known to be wrong before anything is read."""
    from edit3dgs_ns.checkpoints import find_checkpoint

    if not (config.model.prompt or "").strip():
        raise ValueError(
            'edit3dgs needs an instruction: ns-train edit3dgs --prompt "Make him look older" ...'
        )
    if world_size > 1:
        raise ValueError(f"--machine.num-devices {world_size}: edit3dgs runs on one device.")
    for name in ("rounds", "edit_every", "views_per_edit", "timesteps_per_edit"):
        if getattr(config, name) < 1:
            raise ValueError(
                f"--pipeline.{name.replace('_', '-')} {getattr(config, name)}: expected at least 1."
            )
    if min(config.final_steps, config.base_steps, config.anchors) < 0:
        raise ValueError(
            "--pipeline.final-steps, --pipeline.base-steps and --pipeline.anchors cannot be negative."
        )
    if config.timesteps < 0:
        raise ValueError(f"--pipeline.timesteps {config.timesteps}: expected at least 0.")
    if not 0 <= config.stop_when_converged < 1:
        raise ValueError(
            f"--pipeline.stop-when-converged {config.stop_when_converged}: expected a change of colour from 0 (off) to 1, "
            "like 0.02."
        )
    check_fit(config)
    if not 0 < config.noise_last <= config.noise_first <= 1:
        raise ValueError(
            f"--pipeline.noise-first {config.noise_first} --pipeline.noise-last {config.noise_last}: expected "
            "0 < last <= first <= 1."
        )
    check_editor(config.editor)
    if config.avatar is not None:
        find_checkpoint(config.avatar, "--pipeline.avatar", "a run of `ns-train rigged-splatfacto`")
    elif config.base_steps == 0:
        raise ValueError(
            "--pipeline.base-steps 0 without --pipeline.avatar: there would be no avatar to edit."
        )


def check_fit(config: EditPipelineConfig) -> None:
    """Raise a ValueError or FileNotFoundError for wrong options of how edits are fitted."""
    from edit3dgs_ns.edit_loss import check_edit_loss
    from edit3dgs_ns.editing.masks import parse_parts

    check_edit_loss(config.edit_loss, config.edit_loss_weight)
    if config.hold_border < 0:
        raise ValueError(f"--pipeline.hold-border {config.hold_border}: expected metres, 0 or more.")
    if config.hold_outside and not parse_parts(config.editor.only):
        raise ValueError(
            "--pipeline.hold-outside needs a part to be outside of: --pipeline.editor.only hair, for example."
        )
    if config.hold_outside and config.densify:
        raise ValueError(
            "--pipeline.hold-outside with --pipeline.densify: Gaussians that are held can neither split nor be pruned. Use "
            "one of the two."
        )


def check_editor(config: EditorConfig) -> None:
    """Raise a ValueError or FileNotFoundError for a wrong `--pipeline.editor` option."""
    from edit3dgs_ns.editing.loading import check_model

    check_model(config.model)
    if not (0 <= config.keep_strength <= 1 and 0 <= config.keep_from <= config.keep_until <= 1):
        raise ValueError(
            f"--pipeline.editor.keep-strength {config.keep_strength} --pipeline.editor.keep-from {config.keep_from} "
            f"--pipeline.editor.keep-until {config.keep_until}: expected numbers from 0 to 1, and from <= until."
        )
    for name, least in (
        ("views_per_forward", 1),
        ("views_per_key", 1),
        ("self_attention_below", 0),
        ("share_prediction_until", 0),
    ):
        if getattr(config, name) < least:
            raise ValueError(
                f"--pipeline.editor.{name.replace('_', '-')} {getattr(config, name)}: expected at least {least}."
            )


def load_editor_of(options: EditorConfig, device: Any) -> Any:
    """The diffusion model that the options of a run name.

    Args:
        options: of the run.
        device: of the avatar.
    """
    from edit3dgs_ns.editing.loading import load_editor
    from edit3dgs_ns.editing.sharing import SharingOptions

    return load_editor(
        options.model,
        device=device if options.device == "auto" else options.device,
        dtype=options.dtype,
        scheduler=options.scheduler,
        views_per_forward=options.views_per_forward,
        resolution=options.resolution,
        sharing=SharingOptions(
            options.correspondence,
            options.views_per_key,
            options.self_attention_below,
            options.share_prediction_until,
        ),
        attention_slicing=options.attention_slicing,
        offload=options.offload,
    )


def base_rates(base_steps: int) -> dict[str, Callable[[int], float]]:
    """The learning rates of `ns-train rigged-splatfacto-fast`, as functions of the step."""
    from edit3dgs_ns.method_configs.rigged_splatfacto_fast import avatar_optimizers
    from edit3dgs_ns.schedulers import rate_at

    def rate(group: dict[str, Any]) -> Callable[[int], float]:
        first, schedule = group["optimizer"].lr, group["scheduler"]
        return lambda step: first if schedule is None else rate_at(schedule, first, step)

    return {name: rate(group) for name, group in avatar_optimizers(max(base_steps, 1)).items()}
