"""The diffusion loop of InstructPix2Pix on diffusers' components.

Source: Brooks, Holynski and Efros, "InstructPix2Pix: Learning to Follow Image Editing Instructions", CVPR 2023.
    What is different from a plain edit: the loop may start from the *current* image, noised to `request.noise`
    (SDEdit; Instruct-NeRF2NeRF), while the condition stays the *original* image; all views of a batch go
    through a denoising step before any goes through the next, so that they can attend to each other (DGE, see
    `attention.py`) and keep parts of their originals (see `inpainting.py`). Every view draws its noise from a
    generator of its own, and how many views go through the UNet together changes nothing. With pure noise,
    one view and nothing kept, the result is that of diffusers' `StableDiffusionInstructPix2PixPipeline`.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.editing.agreement.correspondence import Correspondence
from edit3dgs_ns.editing.agreement.matching import make_correspondence
from edit3dgs_ns.editing.agreement.sharing import SharingOptions, ViewSharing
from edit3dgs_ns.editing.diffusion.codec import ImageCodec, encode_prompt
from edit3dgs_ns.editing.diffusion.detail import detail_settings, round_trip, with_detail
from edit3dgs_ns.editing.diffusion.editor_defaults import EditorDefaults
from edit3dgs_ns.editing.diffusion.encodings import Encodings
from edit3dgs_ns.editing.diffusion.guidance import guidance_branches
from edit3dgs_ns.editing.diffusion.inpainting import LatentKeeper, latent_mask
from edit3dgs_ns.editing.diffusion.ip_adapter import ImagePrompt
from edit3dgs_ns.editing.diffusion.loop_batch import LoopBatch
from edit3dgs_ns.editing.diffusion.memory import ForwardLimit
from edit3dgs_ns.editing.diffusion.work import Work, weight_bytes
from edit3dgs_ns.editing.editor import EditRequest, EditResult, Finished, Progress
from edit3dgs_ns.editing.framing import Frame, to_tensor
from edit3dgs_ns.editing.predictions import VariancePreservingSpace, first_step_below
from edit3dgs_ns.errors import UserError


class InstructPix2Pix:
    """An `Editor`: edits the views of a batch together, or each by itself.

    Args:
        unet: noise predictor with the latent and the image latent as input channels.
        vae: image autoencoder.
        text_encoder: gives the text embeddings of the prompt.
        tokenizer: its tokenizer.
        scheduler: any diffusers scheduler; its configuration is not changed.
        name: what to call the model in records: a hub id, a folder, or `demo`.
        defaults: what holds when a request leaves it open.
        sharing: how views are made to agree.
        views_per_forward: views that go through a model together; less needs less memory and gives the same
            result. Lowered when the device runs out of memory.
        full_forwards: fill up forwards of fewer views that do not look at each other, so that the bits of an edit do not depend on
            how many views are edited with it.
        image_prompt: embeddings of a reference image, where the UNet has an IP-Adapter.
        device: where it computes; that of the UNet if not given. To be given where weights are offloaded.
        free_memory: called after every edit, to bring offloaded parts back to main memory.
        detail: how much of the originals' detail that the autoencoder loses is given back; see `detail.py`.
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
        full_forwards: bool = False,
        image_prompt: ImagePrompt | None = None,
        device: torch.device | str | None = None,
        free_memory: Callable[[], None] | None = None,
        detail: float = 0.0,
    ):
        self.detail = detail
        if views_per_forward < 1:
            raise UserError(f"views_per_forward {views_per_forward}: expected at least 1.")
        self.unet, self.vae, self.text_encoder = unet.eval(), vae.eval(), text_encoder.eval()
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.name, self.defaults = name, defaults or EditorDefaults()
        self.sharing = (sharing or SharingOptions()).completed(self.defaults.share_prediction_until)
        self.views_per_forward = views_per_forward
        self._unet_limit = ForwardLimit(views_per_forward)
        self._full_forwards = full_forwards
        self._device = torch.device(device) if device is not None else unet.device
        # A UNet in half precision on a processor leaves the latents, which add up small steps, in the autoencoder's float32.
        self._codec = ImageCodec(
            vae, self._device, torch.promote_types(unet.dtype, vae.dtype), views_per_forward
        )
        self._encode_prompt = Encodings().remembering(self._embedded)
        self._image_prompt = image_prompt
        self._free_memory = free_memory or (lambda: None)
        for module in (unet, vae, text_encoder):
            module.requires_grad_(False)
        _check_channels(name, unet, vae)
        if self.sharing.shares_predictions:
            VariancePreservingSpace(scheduler)  # refuses some

    @property
    def settings(self) -> dict[str, Any]:
        """Name and options as JSON values."""
        return {
            "editor": "instruct-pix2pix",
            "model": self.name,
            "scheduler": type(self.scheduler).__name__,
            "resolution": self.defaults.resolution,
            "dtype": str(self.unet.dtype).removeprefix("torch."),
            **self.sharing.settings(),
            **self._reference_settings(),
            **detail_settings(self.detail),
        }

    def _reference_settings(self) -> dict[str, Any]:
        """What tells references apart; nothing where there is none, so that the edits of older runs are found."""
        if self._image_prompt is None:
            return {}
        return {
            "reference": sha256(self._image_prompt.given.float().cpu().numpy().tobytes()).hexdigest()[:16]
        }

    @property
    def views_depend(self) -> bool:
        """Whether the edit of a view depends on the other views of its batch, which then has to be edited as a whole."""
        return self.sharing.correspondence != "none"

    @property
    def size_multiple(self) -> int:
        """Image sides must be multiples of this: the VAE's reduction times the UNet's."""
        return self._vae_factor * 2 ** (len(self.unet.config.down_block_types) - 1)

    @property
    def _vae_factor(self) -> int:
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def weight_bytes(self) -> int:
        """See `KnowsCost`."""
        return weight_bytes(self.unet, self.vae, self.text_encoder)

    def evaluations_per_view(
        self,
        noise: float,
        steps: int | None,
        guidance_scale: float | None,
        image_guidance_scale: float | None,
    ) -> int:
        """See `KnowsCost`."""
        usual = self.defaults
        text = usual.guidance_scale if guidance_scale is None else guidance_scale
        image = usual.image_guidance_scale if image_guidance_scale is None else image_guidance_scale
        assert text is not None and image is not None, "an InstructPix2Pix has both"
        return len(guidance_branches(text, image)) * len(self._timesteps(steps or usual.steps, noise)[1])

    def unknown_instruction(self, prompt: str) -> str | None:
        """A warning that lists the known instructions when `prompt` is none of them; None when all is
        well."""
        return self.defaults.unknown_instruction(prompt, self.name)

    @torch.no_grad()
    def edit(
        self, request: EditRequest, progress: Progress | None = None, finished: Finished | None = None
    ) -> EditResult:
        """Edit the batch.

        Args:
            request: the batch.
            progress: called whenever views are encoded, have gone through a denoising step, or are decoded.
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
            sharing = self._sharing_of(batch, correspondence, request, frame)
            with sharing.attached() if sharing is not None else nullcontext():
                latents = self._denoise_all(batch, sharing)

            def decoded(view: int, image: np.ndarray) -> None:
                batch.work.add()
                if self.detail > 0:
                    image[:] = self._with_detail(image, request.originals[view], frame)
                if finished is not None:
                    finished(view, image)

            images = self._codec.decode(latents, frame, decoded)
        finally:
            self._free_memory()
        return EditResult(
            images=images,
            settings={**self.settings, **batch.settings, "first_timestep": float(batch.timesteps[0])},
            unet_evaluations=batch.evaluations,
            seconds=time.perf_counter() - started,
        )

    def _with_detail(
        self,
        edited: Float[np.ndarray, "height width 3"],
        original: Float[np.ndarray, "height width 3"],
        frame: Frame,
    ) -> Float[np.ndarray, "height width 3"]:
        before, after = (to_tensor(image[None], self._device) for image in (original, edited))
        decoded = frame.leave(round_trip(self.vae, frame.enter(before)))
        image = with_detail(after, before, decoded, frame.cells(self._vae_factor), self.detail)
        return image[0].permute(1, 2, 0).cpu().numpy()

    # -- before the first step -------------------------------------------------------------------------------

    def _prepare(self, request: EditRequest, frame: Frame, progress: Progress | None) -> LoopBatch:
        """Encode prompt and images, draw the noise, and start the latents."""
        settings = self.defaults.settings_for(request)
        first, timesteps = self._timesteps(settings["steps"], request.noise)
        work = Work(progress, request.num_views, 1 if request.noise >= 1 else 2, len(timesteps))
        generators = [torch.Generator().manual_seed(request.view_seed(v)) for v in range(request.num_views)]
        condition = self._codec.encode(request.originals, frame, work.add)
        noise = torch.cat(
            [torch.randn((1, *condition.shape[1:]), generator=g, dtype=condition.dtype) for g in generators]
        ).to(self._device)
        return LoopBatch(
            settings=settings,
            text=self._encode_prompt(request.prompt),
            condition=condition,
            latents=self._start(request, frame, noise, first, work),
            timesteps=timesteps,
            generators=generators,
            branches=guidance_branches(settings["guidance_scale"], settings["image_guidance_scale"]),
            keeper=self._keeper(request, frame, condition, noise),
            work=work,
        )

    def _embedded(self, prompt: str) -> tuple[Tensor, Tensor]:
        return encode_prompt(prompt, self.tokenizer, self.text_encoder, self._device, self.unet.dtype)

    def _timesteps(self, steps: int, noise: float) -> tuple[int, Tensor]:
        """The timesteps to denoise, and the place of the first of them in the full schedule.

        At least one step is taken, however small the noise.
        """
        self.scheduler.set_timesteps(steps, device=self._device)
        timesteps = self.scheduler.timesteps
        if noise >= 1.0:
            return 0, timesteps
        first = first_step_below(self.scheduler, noise, steps)
        return first, timesteps[first:]

    def _start(
        self,
        request: EditRequest,
        frame: Frame,
        noise: Float[Tensor, "views 4 h w"],
        first: int,
        work: Work,
    ) -> Float[Tensor, "views 4 h w"]:
        """The latents that denoising starts from: pure noise, or the current images noised at the first
        timestep denoised."""
        if request.noise >= 1.0:
            return noise * self.scheduler.init_noise_sigma
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(first)
        current = self._codec.encode(request.images, frame, work.add)
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
        return LatentKeeper(original, mask, noise, self.scheduler, request.keep_options)

    # -- the loop --------------------------------------------------------------------------------------------

    def _sharing_of(
        self, batch: LoopBatch, correspondence: Correspondence | None, request: EditRequest, frame: Frame
    ) -> ViewSharing | None:
        if correspondence is None:
            return None
        anchors = list(request.anchors)
        return ViewSharing(
            self.sharing,
            correspondence,
            request,
            unet=self.unet,
            scheduler=self.scheduler,
            latent_size=(batch.latents.shape[2], batch.latents.shape[3]),
            branches=len(batch.branches),
            anchor_latents=self._codec.encode(request.images[anchors], frame) * self._codec.scale
            if anchors and self.sharing.shares_predictions
            else None,
        )

    def _denoise_all(self, batch: LoopBatch, sharing: ViewSharing | None) -> Float[Tensor, "views 4 h w"]:
        """All views from the first timestep to the last, step by step."""
        latents, total = batch.latents, len(batch.timesteps)
        extra = {"generator": batch.generators} if _takes_generator(self.scheduler) else {}
        for step, t in enumerate(batch.timesteps):
            scaled = self.scheduler.scale_model_input(latents, t)
            if sharing is not None and sharing.is_on(t):
                predicted = self._predict_together(batch, scaled, t, sharing, step)
            else:
                predicted = self._predict_apart(batch, scaled, t)
            latents = self.scheduler.step(predicted, t, latents, **extra, return_dict=False)[0]
            if batch.keeper is not None:
                t_next = batch.timesteps[step + 1] if step + 1 < total else None
                latents = batch.keeper.apply(latents, t_next, step, total)
        return latents

    def _predict_apart(
        self, batch: LoopBatch, latents: Float[Tensor, "views 4 h w"], t: Tensor
    ) -> Float[Tensor, "views 4 h w"]:
        """The guided prediction for every view by itself."""
        predicted = torch.empty_like(latents)

        def predict(views: Sequence[int]) -> None:
            copies = self._unet_limit.views - len(views) if self._full_forwards else 0
            filled = [*views, *[views[-1]] * copies]
            guided = self._guided(batch, latents, t, filled, lambda branches: nullcontext())
            predicted[list(views)] = guided[: len(views)]
            batch.evaluations -= copies * len(batch.branches)  # nobody asked for these
            batch.work.add(len(views))

        self._unet_limit.each(range(len(latents)), predict, len(batch.branches))
        return predicted

    def _predict_together(
        self,
        batch: LoopBatch,
        latents: Float[Tensor, "views 4 h w"],
        t: Tensor,
        sharing: ViewSharing,
        step: int,
    ) -> Float[Tensor, "views 4 h w"]:
        """The same: the key views first, then the others with what these found; then all of them agree."""
        predicted, limit = torch.empty_like(latents), self._unet_limit

        def predict(views: Sequence[int], during: _During) -> None:
            predicted[list(views)] = self._guided(batch, latents, t, views, during)
            batch.work.add(len(views))

        keys, attention = sharing.begin_step(step), sharing.attention
        limit.whole(lambda: predict(keys, attention.key_pass), len(batch.branches))
        limit.each(
            [view for view in range(len(latents)) if view not in keys],
            lambda views: predict(views, lambda branches: attention.injected_pass(views, branches)),
            len(batch.branches),
        )
        predicted = sharing.agree(predicted, latents, t, last=step == len(batch.timesteps) - 1)
        sharing.end_step()
        return predicted

    def _guided(
        self,
        batch: LoopBatch,
        latents: Float[Tensor, "views 4 h w"],
        t: Tensor,
        views: Sequence[int],
        during: _During,
    ) -> Float[Tensor, "picked 4 h w"]:
        """The weighted sum of the branches' predictions for some views."""
        everything = range(len(batch.branches))
        picked, result = list(views), 0.0
        for branches in [[b] for b in everything] if self._unet_limit.branches_apart else [list(everything)]:
            inputs, words = batch.unet_input(latents, picked, branches)
            extra = {}
            if self._image_prompt is not None:
                texts = [batch.branches[b].text for b in branches]
                pictures = self._image_prompt.rows(texts, len(picked))
                extra["added_cond_kwargs"] = {"image_embeds": [x.to(self.unet.dtype) for x in pictures]}
            with during(branches):
                prediction = self.unet(
                    inputs.to(self.unet.dtype), t, encoder_hidden_states=words, return_dict=False, **extra
                )[0]
            batch.evaluations += len(inputs)
            for branch, part in zip(branches, prediction.to(latents.dtype).chunk(len(branches)), strict=True):
                result = result + batch.branches[branch].weight * part
        return result  # type: ignore[return-value]


_During = Callable[[Sequence[int]], AbstractContextManager[None]]
"""Given guidance branches: a context for a forward that holds these."""


def _takes_generator(scheduler: Any) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters


def _check_channels(name: str, unet: Any, vae: Any) -> None:
    expected = 2 * vae.config.latent_channels
    if unet.config.in_channels != expected:
        raise UserError(
            f"The model {name!r} is no InstructPix2Pix: its UNet takes {unet.config.in_channels} channels, expected "
            f"{expected} (the latent and the image to edit, {vae.config.latent_channels} each). Choose another with "
            "--pipeline.editor.model."
        )
