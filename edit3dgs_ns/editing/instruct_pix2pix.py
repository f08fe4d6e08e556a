"""The diffusion loop of InstructPix2Pix on diffusers' components.

Source: Brooks, Holynski and Efros, "InstructPix2Pix: Learning to Follow Image Editing Instructions", CVPR 2023.
    What is different from a plain edit: the loop may start from the *current* image, noised to `request.noise`
    (SDEdit; Instruct-NeRF2NeRF), while the condition stays the *original* image; all views of a batch go
    through a denoising step before any goes through the next, so that they can look at each other (DGE, see
    `attention.py`) and keep parts of their originals (see `inpainting.py`). Every view draws its noise from a
    generator of its own, and how many views go through the UNet together changes nothing. With pure noise,
    one view and nothing kept, the result is that of diffusers' `StableDiffusionInstructPix2PixPipeline`.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.editing.attention import SharedAttention
from edit3dgs_ns.editing.codec import ImageCodec, encode_sentence
from edit3dgs_ns.editing.correspondence import Correspondence, CorrespondenceKind, make_correspondence
from edit3dgs_ns.editing.editor import EditRequest, EditResult, Finished, Progress
from edit3dgs_ns.editing.framing import Frame
from edit3dgs_ns.editing.guidance import Branch, guidance_branches
from edit3dgs_ns.editing.inpainting import KeepOptions, LatentKeeper, latent_mask
from edit3dgs_ns.editing.key_views import draw_key_views, order_around_head, runs_of
from edit3dgs_ns.editing.memory import ForwardLimit


@dataclass(frozen=True)
class EditorDefaults:
    """What holds when a request leaves it open. A folder's `edit3dgs.json` may set its own."""

    guidance_scale: float = 7.5
    image_guidance_scale: float = 1.5
    steps: int = 20
    resolution: int | None = None
    """Longer side, in pixels, that the images are scaled to for the model; None leaves their size alone."""
    instructions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Wordings of the instructions that the model was taught, by edit; empty when it takes any sentence."""


@dataclass(frozen=True)
class SharingOptions:
    """How the views of a batch are made to agree; see `EditorConfig` for the meaning to a user."""

    correspondence: CorrespondenceKind = "none"
    views_per_key: int = 5
    self_attention_below: int = 100

    def __post_init__(self) -> None:
        if self.views_per_key < 1:
            raise ValueError(f"views_per_key {self.views_per_key}: expected at least 1.")


class InstructPix2Pix:
    """An `Editor`: edits the views of a batch together, or each by itself.

    Args:
        unet: noise predictor with the latent and the image latent as input channels.
        vae: image autoencoder.
        text_encoder: gives the sentence's tokens as vectors.
        tokenizer: its tokenizer.
        scheduler: any diffusers scheduler; its configuration is not changed.
        name: what to call the model in records: a hub id, a folder, or `demo`.
        defaults: what holds when a request leaves it open.
        sharing: how views are made to agree.
        views_per_forward: views that go through a model together; less needs less memory and gives the same
            result. Lowered when the device runs out of memory.
        device: where it computes; that of the UNet if not given. To be given where weights are offloaded.
        free_memory: called after every edit, to bring offloaded parts back to main memory.
    """

    def __init__(
        self,
        unet: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: Any,
        *,
        name: str = "custom",
        defaults: EditorDefaults | None = None,
        sharing: SharingOptions | None = None,
        views_per_forward: int = 4,
        device: torch.device | str | None = None,
        free_memory: Callable[[], None] | None = None,
    ):
        if views_per_forward < 1:
            raise ValueError(f"views_per_forward {views_per_forward}: expected at least 1.")
        self.unet, self.vae, self.text_encoder = unet.eval(), vae.eval(), text_encoder.eval()
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.name, self.defaults = name, defaults or EditorDefaults()
        self.sharing = sharing or SharingOptions()
        self.views_per_forward = views_per_forward
        self._unet_limit = ForwardLimit(views_per_forward)
        self._device = torch.device(device) if device is not None else unet.device
        self._codec = ImageCodec(vae, self._device, unet.dtype, views_per_forward)
        self._free_memory = free_memory or (lambda: None)
        for module in (unet, vae, text_encoder):
            module.requires_grad_(False)
        _check_channels(name, unet, vae)

    @property
    def settings(self) -> dict[str, Any]:
        """Name and options as JSON values."""
        shared = self.sharing.correspondence != "none"
        return {
            "editor": "instruct-pix2pix",
            "model": self.name,
            "scheduler": type(self.scheduler).__name__,
            "resolution": self.defaults.resolution,
            "dtype": str(self.unet.dtype).removeprefix("torch."),
            "correspondence": self.sharing.correspondence,
            "views_per_key": self.sharing.views_per_key if shared else None,
            "self_attention_below": self.sharing.self_attention_below if shared else None,
        }

    @property
    def views_depend(self) -> bool:
        """What a view becomes depends on the others of its batch, which has to be edited as a whole."""
        return self.sharing.correspondence != "none"

    @property
    def size_multiple(self) -> int:
        """Image sides must be multiples of this: the VAE's reduction times the UNet's."""
        return self._vae_factor * 2 ** (len(self.unet.config.down_block_types) - 1)

    @property
    def _vae_factor(self) -> int:
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def unknown_instruction(self, prompt: str) -> str | None:
        """A warning that lists the known instructions when `prompt` is none of them; None when all is
        well."""
        known = self.defaults.instructions
        spoken = _normalised(prompt)
        if not known or any(spoken == _normalised(w) for wordings in known.values() for w in wordings):
            return None
        listing = "\n".join(f'  {edit}: "{wordings[0]}"' for edit, wordings in known.items() if wordings)
        return (
            f'The editor {self.name!r} was never taught "{prompt}"; its result may be anything or nothing. It knows:\n{listing}\n'
            "For any other instruction use a real model: --pipeline.editor.model timbrooks/instruct-pix2pix."
        )

    @torch.no_grad()
    def edit(
        self, request: EditRequest, progress: Progress | None = None, finished: Finished | None = None
    ) -> EditResult:
        """Edit the batch.

        Args:
            request: the batch.
            progress: called whenever views have gone through a denoising step.
            finished: called with every view as soon as it is decoded.

        Returns:
            The edited views in the request's order and size.

        Raises:
            ValueError: the request lacks what the correspondence needs.
            torch.OutOfMemoryError: not even one view fits the device's memory.
        """
        started = time.perf_counter()
        frame = Frame.fit(
            request.images.shape[1], request.images.shape[2], self.size_multiple, self.defaults.resolution
        )
        # First, for it may refuse the request.
        correspondence = make_correspondence(self.sharing.correspondence, request, frame, self._device)
        try:
            batch = self._prepare(request, frame, progress)
            with self._shared_attention(batch, correspondence) as shared:
                latents = self._denoise_all(batch, shared)
            images = self._codec.decode(latents, frame, finished)
        finally:
            self._free_memory()
        return EditResult(
            images=images,
            settings={**self.settings, **batch.settings, "first_timestep": float(batch.timesteps[0])},
            unet_evaluations=batch.evaluations,
            seconds=time.perf_counter() - started,
        )

    # -- before the first step -------------------------------------------------------------------------------

    def _prepare(self, request: EditRequest, frame: Frame, progress: Progress | None) -> _Batch:
        """Encode sentence and images, draw the noise, and start the latents."""
        settings = self._settings_for(request)
        first, timesteps = self._timesteps(settings["steps"], request.noise)
        generators = [torch.Generator().manual_seed(request.view_seed(v)) for v in range(request.num_views)]
        condition = self._codec.encode(request.originals, frame)
        noise = torch.cat(
            [torch.randn((1, *condition.shape[1:]), generator=g, dtype=condition.dtype) for g in generators]
        ).to(self._device)
        return _Batch(
            settings=settings,
            text=encode_sentence(
                request.prompt, self.tokenizer, self.text_encoder, self._device, self.unet.dtype
            ),
            condition=condition,
            latents=self._start(request, frame, noise, first),
            timesteps=timesteps,
            generators=generators,
            branches=guidance_branches(settings["guidance_scale"], settings["image_guidance_scale"]),
            key_runs=runs_of(
                order_around_head(request.c2w, request.timesteps), self.sharing.views_per_key, request.anchors
            ),
            keeper=self._keeper(request, frame, condition, noise),
            progress=progress,
        )

    def _settings_for(self, request: EditRequest) -> dict[str, Any]:
        def pick(name: str) -> Any:
            value = getattr(request, name)
            return value if value is not None else getattr(self.defaults, name)

        names = ("guidance_scale", "image_guidance_scale", "steps")
        return {name: pick(name) for name in names} | {"noise": request.noise, "seed": request.seed}

    def _timesteps(self, steps: int, noise: float) -> tuple[int, Tensor]:
        """The timesteps to denoise, and the place of the first of them in the full schedule.

        At least one step is taken, however small the noise.
        """
        self.scheduler.set_timesteps(steps, device=self._device)
        timesteps, order = self.scheduler.timesteps, self.scheduler.order
        if noise >= 1.0:
            return 0, timesteps
        highest = noise * self.scheduler.config.num_train_timesteps
        # Schedulers of second order visit a timestep twice; like diffusers' img2img, begin at a whole step.
        usable = [
            k * order for k in range(steps) if k * order < len(timesteps) and timesteps[k * order] <= highest
        ]
        first = usable[0] if usable else (steps - 1) * order
        return first, timesteps[first:]

    def _start(
        self, request: EditRequest, frame: Frame, noise: Float[Tensor, "views 4 h w"], first: int
    ) -> Float[Tensor, "views 4 h w"]:
        """The latents that denoising starts from: pure noise, or the current images noised at the first
        timestep denoised."""
        if request.noise >= 1.0:
            return noise * self.scheduler.init_noise_sigma
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(first)
        current = self._codec.encode(request.images, frame)
        at = self.scheduler.timesteps[first : first + 1].repeat(len(noise))
        return self.scheduler.add_noise(current * self._codec.scale, noise, at)

    def _keeper(
        self,
        request: EditRequest,
        frame: Frame,
        condition: Float[Tensor, "views 4 h w"],
        noise: Float[Tensor, "views 4 h w"],
    ) -> LatentKeeper | None:
        if request.keep_mask is None:
            return None
        mask = latent_mask(request.keep_mask, frame, (condition.shape[2], condition.shape[3]), self._device)
        original = condition * self._codec.scale
        return LatentKeeper(original, mask, noise, self.scheduler, KeepOptions.of(request))

    # -- the loop --------------------------------------------------------------------------------------------

    @contextmanager
    def _shared_attention(
        self, batch: _Batch, correspondence: Correspondence | None
    ) -> Iterator[SharedAttention | None]:
        if correspondence is None:
            yield None
            return
        size = (batch.latents.shape[2], batch.latents.shape[3])
        with SharedAttention(self.unet, correspondence, size, branches=len(batch.branches)) as shared:
            yield shared

    def _denoise_all(self, batch: _Batch, shared: SharedAttention | None) -> Float[Tensor, "views 4 h w"]:
        """All views from the first timestep to the last, step by step."""
        latents, total = batch.latents, len(batch.timesteps)
        extra = {"generator": batch.generators} if _takes_generator(self.scheduler) else {}
        for step, t in enumerate(batch.timesteps):
            apart = shared is None or t < self.sharing.self_attention_below
            scaled = self.scheduler.scale_model_input(latents, t)
            predicted = self._predict(batch, scaled, t, None if apart else shared, step)
            latents = self.scheduler.step(predicted, t, latents, **extra, return_dict=False)[0]
            if batch.keeper is not None:
                t_next = batch.timesteps[step + 1] if step + 1 < total else None
                latents = batch.keeper.apply(latents, t_next, step, total)
        return latents

    def _predict(
        self,
        batch: _Batch,
        latents: Float[Tensor, "views 4 h w"],
        t: Tensor,
        shared: SharedAttention | None,
        step: int,
    ) -> Float[Tensor, "views 4 h w"]:
        """The guided prediction for every view: the key views first, then the others with what these found."""
        predicted, limit = torch.empty_like(latents), self._unet_limit

        def predict(views: Sequence[int], sharing: _Sharing) -> None:
            predicted[list(views)] = self._guided(batch, latents, t, views, sharing)
            batch.count_steps(len(views))

        everyone = range(len(latents))
        if shared is None:
            limit.each(
                everyone, lambda views: predict(views, lambda branches: nullcontext()), len(batch.branches)
            )
            return predicted
        keys = draw_key_views(batch.key_runs, batch.settings["seed"], step)
        shared.begin_step(keys)
        limit.whole(lambda: predict(keys, shared.key_pass), len(batch.branches))
        others = [view for view in everyone if view not in keys]
        limit.each(
            others,
            lambda views: predict(views, lambda branches: shared.injected_pass(views, branches)),
            len(batch.branches),
        )
        shared.end_step()
        return predicted

    def _guided(
        self,
        batch: _Batch,
        latents: Float[Tensor, "views 4 h w"],
        t: Tensor,
        views: Sequence[int],
        sharing: _Sharing,
    ) -> Float[Tensor, "picked 4 h w"]:
        """The weighted sum of the branches' predictions for some views."""
        everything = range(len(batch.branches))
        picked, result = list(views), 0.0
        for branches in [[b] for b in everything] if self._unet_limit.branches_apart else [list(everything)]:
            inputs, words = batch.unet_input(latents, picked, branches)
            with sharing(branches):
                prediction = self.unet(inputs, t, encoder_hidden_states=words, return_dict=False)[0]
            batch.evaluations += len(inputs)
            for branch, part in zip(branches, prediction.chunk(len(branches)), strict=True):
                result = result + batch.branches[branch].weight * part
        return result  # type: ignore[return-value]


_Sharing = Callable[[Sequence[int]], AbstractContextManager[None]]
"""Given guidance branches: a context for a forward that holds these."""


@dataclass
class _Batch:
    """What the loop needs of a batch that is being edited."""

    settings: dict[str, Any]
    text: tuple[Float[Tensor, "1 tokens width"], Float[Tensor, "1 tokens width"]]
    condition: Float[Tensor, "views 4 h w"]
    latents: Float[Tensor, "views 4 h w"]
    timesteps: Tensor
    generators: list[torch.Generator]
    branches: tuple[Branch, ...]
    key_runs: list[tuple[int, ...]]
    keeper: LatentKeeper | None
    progress: Progress | None
    evaluations: int = 0
    steps_done: int = 0

    def count_steps(self, views: int) -> None:
        """Some views have gone through a step."""
        self.steps_done += views
        if self.progress is not None:
            self.progress(self.steps_done, len(self.condition) * len(self.timesteps))

    def unet_input(
        self, latents: Float[Tensor, "views 4 h w"], views: list[int], branches: Sequence[int]
    ) -> tuple[Float[Tensor, "rows 8 h w"], Float[Tensor, "rows tokens width"]]:
        """Latents with their condition, and words, in the order (branch, view)."""
        sentence, nothing = self.text
        condition = self.condition[views]
        images = [condition if self.branches[b].image else torch.zeros_like(condition) for b in branches]
        words = [sentence if self.branches[b].sentence else nothing for b in branches]
        inputs = torch.cat([latents[views].repeat(len(branches), 1, 1, 1), torch.cat(images)], dim=1)
        return inputs, torch.cat([word.expand(len(views), -1, -1) for word in words])


def _takes_generator(scheduler: Any) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters


def _check_channels(name: str, unet: Any, vae: Any) -> None:
    expected = 2 * vae.config.latent_channels
    if unet.config.in_channels != expected:
        raise ValueError(
            f"The model {name!r} is no InstructPix2Pix: its UNet takes {unet.config.in_channels} channels, expected "
            f"{expected} (the latent and the image to edit, {vae.config.latent_channels} each). Choose another with "
            "--pipeline.editor.model."
        )


def _normalised(sentence: str) -> str:
    return " ".join(sentence.lower().strip().strip(".!?").split())
