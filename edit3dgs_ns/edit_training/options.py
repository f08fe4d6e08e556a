"""Options of `ns-train edit3dgs`: what `--pipeline...` sets. Their checks are in `checks.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

from edit3dgs_ns.editing.editor import KeepOptions
from edit3dgs_ns.editing.masks.grounded_sam_options import GroundedSamOptions
from edit3dgs_ns.editing.noise_levels import level_of_timestep
from edit3dgs_ns.training.datamanager import AvatarDatamanagerConfig
from edit3dgs_ns.training.model import RiggedSplatfactoModelConfig
from edit3dgs_ns.training.pipeline import AvatarPipelineConfig


@dataclass
class EditorConfig(KeepOptions):
    """The diffusion model and how it is used."""

    model: str = "timbrooks/instruct-pix2pix"
    """Diffusion model to edit with: a hub id, a folder in diffusers' format (InstructPix2Pix, its SDXL version, FLUX.1 Kontext,
    FLUX.2, Qwen-Image-Edit, LongCat-Image-Edit), or `demo` or `demo-flow` for a small embedded one. Or an editor of your own:
    `command:PROGRAM`, or `python:package.module:factory`."""
    reference: tuple[Path, ...] = ()
    """Further images that the prompt may speak of ("the hat of image 2"), for models that take several: FLUX.2 and
    Qwen-Image-Edit-Plus. InstructPix2Pix takes one with --pipeline.editor.ip-adapter."""
    ip_adapter: Optional[Path] = None  # noqa: UP045
    """Weights of an IP-Adapter for Stable Diffusion 1 (safetensors, its folder image_encoder beside them), with which
    InstructPix2Pix takes a reference."""
    workers: str = "1"
    """Processes that edit, each with a model of its own: a number, or a Ray cluster, `ray://HEAD:10001` or `8@ray://HEAD:10001`.
    The images are those of one process."""
    timeout: float = 3600.0
    """Seconds that a `command:` may take for a batch of views."""
    guidance_scale: Optional[float] = None  # noqa: UP045
    """Weight of the prompt; the model's own if not given (InstructPix2Pix: 7.5)."""
    image_guidance_scale: Optional[float] = None  # noqa: UP045
    """Weight of the original image; the model's own if not given (1.5); only InstructPix2Pix and its SDXL version have one."""
    steps: Optional[int] = None  # noqa: UP045
    """Denoising steps from pure noise; the model's own if not given (InstructPix2Pix: 20). Less noise takes its share of
    them."""
    resolution: Optional[int] = None  # noqa: UP045
    """Longer side in pixels that images are scaled to for the model; the model's own or the images' if not
    given."""
    scheduler: Literal["auto", "ddim", "shipped"] = "auto"
    """DDIM, or the scheduler shipped with the model; `auto` is DDIM for InstructPix2Pix, else the shipped one."""
    views_per_forward: int = 4
    """Views that go through an InstructPix2Pix together; less needs less memory. Halved by itself when a CUDA
    device runs out of memory. Other models take one view at a time."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Precision of the diffusion model: `auto` is float16 or bfloat16 on CUDA, as the model's family wants it; bfloat16 for the
    UNet of InstructPix2Pix on processors that multiply it natively; else float32."""
    device: str = "auto"
    """Device of the diffusion model: `auto` is that of the avatar."""
    shared_noise: bool = True
    """All views start from the same noise, so that what the noise decides agrees between them."""
    correspondence: Literal["none", "epipolar", "rig"] = "rig"
    """How the views of a batch agree: key views look at each other, and the others take over what these found
    at the same surface point. `rig`: the point is known from the avatar, across cameras and timesteps;
    `epipolar`: it is searched by its appearance, on the line where the key view must show it; `none`: each view is
    edited alone."""
    views_per_key: int = 5
    """Neighbouring views for each key view of a denoising step; of three views or more two are key views."""
    self_attention_below: int = 100
    """Below this diffusion timestep (of usually 1000) each view is denoised alone; 0 for never."""
    share_prediction_until: Optional[float] = None  # noqa: UP045
    """Down to this noise level (0 to 1, noise to noise and signal) a surface point is predicted the same in all views that
    show it: the appearance is decided together. Below it, and in the last step, every view makes its own detail. 0 shares the
    last step too, 1 is for never; the model's own if not given (0.695; FLUX.2 klein and demo-flow: 0.4)."""
    keep: str = "auto"
    """Parts of the head, separated by commas, that keep what their originals show, or `none`: `eyes,mouth` keeps the
    expression. `auto` keeps these two where the prompt does not speak of them and the first edits leave them alone. Any region
    of the rig, an unknown name lists them; with --pipeline.masks grounded-sam any words: "the hat. the glasses"."""
    keep_margin: float = 0.0
    """How far around these parts is kept with them, as a share of the images' longer side; 0.016 is one of 64 latent pixels."""
    only: str = "none"
    """Parts of the head that alone are edited, like `hair`; `none` edits all."""
    detail: float = 1.0
    """How much of an original's fine detail, which the model's autoencoder loses, is given back where the edit changes little,
    from 0 (off) to 1."""
    attention_slicing: bool = False
    """Compute attention one head at a time. Slower; only for devices where PyTorch's own memory-saving attention
    is not available."""
    offload: Literal["none", "model", "layers"] = "none"
    """Keep the diffusion model's parts in main memory while they are not needed: whole `model`s (text encoder,
    UNet or transformer, VAE) or single `layers` (much slower, needs least memory). CUDA only."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Reads a config.yml; older ones name the timestep of Stable Diffusion's schedule where there is a noise level now."""
        until = state.get("share_prediction_until")
        self.__dict__.update(
            state
            | {
                "share_prediction_until": level_of_timestep(until)
                if until is not None and until > 1
                else until
            }
        )


@dataclass
class EditOptions(AvatarPipelineConfig):
    """Edits an avatar as an instruction says, given by --prompt."""

    datamanager: AvatarDatamanagerConfig = field(default_factory=AvatarDatamanagerConfig)
    """specifies the datamanager config"""
    model: RiggedSplatfactoModelConfig = field(default_factory=RiggedSplatfactoModelConfig)
    """specifies the model config"""
    editor: EditorConfig = field(default_factory=EditorConfig)
    """the diffusion model"""
    avatar: Optional[Path] = None  # noqa: UP045
    """Trained avatar to edit: run folder, config.yml or checkpoint of `ns-train rigged-splatfacto`. Without
    it, one is trained first."""
    base_steps: int = 3000
    """Steps that the avatar is trained for before the first edit, when none is given."""
    rounds: int = 20
    """Batches that are edited; each is several cameras of one timestep or more. Every timestep has its turn
    before any comes again."""
    edit_every: int = 50
    """Steps from one edit to the next."""
    rounds_at_once: int = 1
    """Rounds that are edited together, from renders of the same avatar, before the steps of all of them. They are in flight at
    once where --pipeline.editor.workers has several; in one process the next is rendered while the model edits. The images are
    the same for any number of workers."""
    views_per_edit: int = 4
    """Cameras of each timestep in a batch."""
    timesteps_per_edit: int = 1
    """Timesteps in a batch. With more than one, its key views steer all of them (--pipeline.editor.correspondence rig)."""
    final_steps: int = 200
    """Steps after the last batch's own, with falling learning rates."""
    stop_when_converged: float = 0.0
    """End the rounds early when edits change what the avatar shows by less than this, on average over the head (colours go
    from 0 to 1), in two rounds in a row; 0: as many as `rounds` says. `edit_history.json` lists it as `correction`."""
    anchors: int = 0
    """Views of the first round that every later round edits along as key views, so that it follows their appearance. Each
    costs as much as any other view of a batch, and is trained on no second time."""
    judge: bool = True
    """Judge every edited view before it is stored: not finite, of one colour, unchanged, moved or scaled against its original,
    unlike the other views. A view that has moved is moved back where nothing is lost by that; others are refused."""
    retries: int = 2
    """How often a refused view is edited again, with another seed; then it is left out, and named."""
    timestep_order: Literal["random", "sequential", "farthest-first"] = "random"
    """Which timestep is edited next: `random`; `sequential`, along the motion; `farthest-first`, the one whose expression is
    farthest from all before, so that few timesteps cover a long capture and the rig carries their edit to the others."""
    timesteps: int = 0
    """Number of different timesteps that are edited, in turns; 0: as many as the rounds reach."""
    noise_first: float = 0.98
    """How far the renders of the first round are noised before they are edited, as a fraction of the
    diffusion schedule."""
    noise_last: float = 0.3
    """The same for the last round. A run that is resumed with more rounds goes on falling from the level it had reached."""
    new_noise: bool = False
    """Draw new noise in every round."""
    masks: Literal["rig", "grounded-sam"] = "rig"
    """Where the masks of --pipeline.editor.keep and --pipeline.editor.only come from: `rig`, the avatar itself (exact,
    and costs nothing); `grounded-sam`, a detector that looks for any words in the images."""
    grounded_sam: GroundedSamOptions = field(default_factory=GroundedSamOptions)
    """the detector of --pipeline.masks grounded-sam"""
    train_on: Literal["edited", "mixed"] = "edited"
    """Once there are edits, train on `edited` images only: timesteps that are not edited change with them, because all share
    the Gaussians. Or `mixed`, on all images of the capture: those that no round has edited hold the avatar to its old
    appearance, so it is for runs that reach them all."""
    edit_loss: Literal["auto", "lpips", "ssim"] = "auto"
    """What edits are fitted with besides L1: LPIPS or SSIM; `auto` is LPIPS if its weights (AlexNet) are on this machine.
    Nothing is downloaded."""
    edit_loss_weight: Optional[float] = None  # noqa: UP045
    """Share of LPIPS or 1 - SSIM in that loss, 0 to 1; the rest is L1. If not given: 0.5 for LPIPS, the model's
    --pipeline.model.ssim-lambda for SSIM."""
    hold_outside: bool = False
    """Hold all Gaussians outside of the part that --pipeline.editor.only names exactly as they are."""
    hold_border: float = 0.015
    """How far (metres) around that part Gaussians still move: masks are soft at their border."""
    densify: bool = False
    """Let Gaussians split and be pruned while edits are fitted, as the model's options say."""
    growth_budget: float = 0.5
    """How many more Gaussians than the unedited avatar there may be where an edit's views show something new (a hat, a beard),
    as a share of its number; what they show to be gone (a bald head's hair) is removed. Edits of colours add and remove none. 0:
    the number stays."""
    edit_expression: Literal["auto", "on", "off"] = "auto"
    """Make what the edits change in expression ("make her smile") an offset of the motion, and fit the Gaussians under it: speech
    and blinks play on. `auto` where edits of three timesteps or more agree on one; `on` always; `off`: expressions are painted."""
    edit_motion: bool = False
    """Go on training the expressions and poses while edits are fitted."""
    edit_light: bool = False
    """Go on training how the capture's light changes a turning face (one small set of numbers for the whole avatar) while
    edits are fitted."""
    seed: int = 0
    """Seed of the order of the batches and of the diffusion's noise."""

    @property
    def steps_before_edits(self) -> int:
        """Steps of the base training; none for an avatar that is trained already."""
        return 0 if self.avatar is not None else self.base_steps

    @property
    def prompt(self) -> str:
        """The instruction, without white space around it."""
        return (self.model.prompt or "").strip()
