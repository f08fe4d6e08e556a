"""The diffusion loop of InstructPix2Pix on diffusers' components.

Source: Brooks, Holynski and Efros, "InstructPix2Pix: Learning to Follow Image Editing Instructions", CVPR
    2023. Two things are
different from a plain edit: the loop may start from the *current* image, noised to `request.noise` (SDEdit;
    Instruct-NeRF2NeRF), while the condition stays the *original* image; and every view draws its noise from a
    generator of its own, so that a view's result does not depend on how the batch is split. With pure noise
    and one view, the result is that of diffusers' `StableDiffusionInstructPix2PixPipeline`.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.editing.editor import EditRequest, EditResult, Finished, Progress
from edit3dgs_ns.editing.framing import Frame, to_tensor

logger = logging.getLogger(__name__)


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


class InstructPix2Pix:
    """An `Editor`: edits each view of a batch by itself.

    Args:
        unet: noise predictor with the latent and the image latent as input channels.
        vae: image autoencoder.
        text_encoder: gives the sentence's tokens as vectors.
        tokenizer: its tokenizer.
        scheduler: any diffusers scheduler; its configuration is not changed.
        name: what to call the model in records: a hub id, a folder, or `demo`.
        defaults: what holds when a request leaves it open.
        views_per_forward: views denoised together; less needs less memory and gives the same result.
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
        views_per_forward: int = 4,
    ):
        if views_per_forward < 1:
            raise ValueError(f"views_per_forward {views_per_forward}: expected at least 1.")
        self.unet, self.vae, self.text_encoder = unet.eval(), vae.eval(), text_encoder.eval()
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.name, self.defaults = name, defaults or EditorDefaults()
        self.views_per_forward = views_per_forward
        for module in (unet, vae, text_encoder):
            module.requires_grad_(False)
        _check_channels(name, unet, vae)

    @property
    def settings(self) -> dict[str, Any]:
        """Name and options as JSON values."""
        return {
            "editor": "instruct-pix2pix",
            "model": self.name,
            "scheduler": type(self.scheduler).__name__,
            "resolution": self.defaults.resolution,
            "dtype": str(self.unet.dtype).removeprefix("torch."),
        }

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
        """Edit every view of the batch.

        Args:
            request: the batch.
            progress: called after every denoising step.
            finished: called with every view as soon as it is decoded.

        Returns:
            The edited views in the request's order and size.
        """
        started = time.perf_counter()
        settings = self._settings_for(request)
        first, timesteps = self._timesteps(settings["steps"], request.noise)
        text = self._encode_text(request.prompt)
        frame = Frame.fit(
            request.images.shape[1], request.images.shape[2], self.size_multiple, self.defaults.resolution
        )
        weights = guidance_weights(settings["guidance_scale"], settings["image_guidance_scale"])
        done, total = 0, request.num_views * len(timesteps)
        edited = []
        for start in range(0, request.num_views, self.views_per_forward):
            views = range(start, min(start + self.views_per_forward, request.num_views))
            generators = [torch.Generator().manual_seed(request.view_seed(v)) for v in views]
            picked = slice(views.start, views.stop)
            condition = self._encode(frame.enter(to_tensor(request.originals[picked], self._device)))
            latents = self._start(request, picked, frame, condition, settings["steps"], first, generators)
            for t in timesteps:
                latents = self._denoise(latents, condition, text, weights, t, generators)
                done += len(views)
                if progress is not None:
                    progress(done, total)
            edited.append(
                frame.leave(self._decode(latents)).permute(0, 2, 3, 1).cpu().numpy().astype(np.float32)
            )
            if finished is not None:
                for view, image in zip(views, edited[-1], strict=True):
                    finished(view, image)
        images = np.ascontiguousarray(np.concatenate(edited))
        branches = sum(weight != 0 for weight in weights)
        return EditResult(
            images=images,
            settings={**self.settings, **settings, "first_timestep": float(timesteps[0])},
            unet_evaluations=branches * total,
            seconds=time.perf_counter() - started,
        )

    # -- the parts of the loop -------------------------------------------------------------------------------

    @property
    def _device(self) -> torch.device:
        return self.unet.device

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
        self,
        request: EditRequest,
        picked: slice,
        frame: Frame,
        condition: Float[Tensor, "views 4 h w"],
        steps: int,
        first: int,
        generators: list[torch.Generator],
    ) -> Float[Tensor, "views 4 h w"]:
        """The latents that denoising starts from: pure noise, or the current images noised at the first
        timestep denoised."""
        # A scheduler counts its steps: every chunk of views needs it fresh.
        self.scheduler.set_timesteps(steps, device=self._device)
        shape = (1, self.vae.config.latent_channels, *condition.shape[-2:])
        noise = torch.cat([torch.randn(shape, generator=g, dtype=condition.dtype) for g in generators]).to(
            self._device
        )
        if request.noise >= 1.0:
            return noise * self.scheduler.init_noise_sigma
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(first)
        current = self._encode(frame.enter(to_tensor(request.images[picked], self._device)))
        at = self.scheduler.timesteps[first : first + 1].repeat(len(generators))
        return self.scheduler.add_noise(current * self.vae.config.scaling_factor, noise, at)

    def _denoise(
        self,
        latents: Float[Tensor, "views 4 h w"],
        condition: Float[Tensor, "views 4 h w"],
        text: tuple[Tensor, Tensor],
        weights: tuple[float, float, float],
        t: Tensor,
        generators: list[torch.Generator],
    ) -> Float[Tensor, "views 4 h w"]:
        """One step from timestep `t` to the next lower one."""
        predicted = self._predict(self.scheduler.scale_model_input(latents, t), condition, text, weights, t)
        extra = {} if not _takes_generator(self.scheduler) else {"generator": generators}
        return self.scheduler.step(predicted, t, latents, **extra, return_dict=False)[0]

    def _predict(
        self,
        latents: Float[Tensor, "views 4 h w"],
        condition: Float[Tensor, "views 4 h w"],
        text: tuple[Tensor, Tensor],
        weights: tuple[float, float, float],
        t: Tensor,
    ) -> Float[Tensor, "views 4 h w"]:
        """Guided prediction; branches of weight 0 are not computed."""
        sentence, nothing = text
        branches = [(sentence, condition), (nothing, condition), (nothing, torch.zeros_like(condition))]
        used = [(weight, *branch) for weight, branch in zip(weights, branches, strict=True) if weight != 0]
        views = latents.shape[0]
        images = torch.cat([image for _, _, image in used])
        words = torch.cat([word.expand(views, -1, -1) for _, word, _ in used])
        inputs = torch.cat([torch.cat([latents] * len(used)), images], dim=1)
        predictions = self.unet(inputs, t, encoder_hidden_states=words, return_dict=False)[0].chunk(len(used))
        return sum(weight * prediction for (weight, _, _), prediction in zip(used, predictions, strict=True))  # type: ignore[return-value]

    # -- text and images -------------------------------------------------------------------------------------

    def _encode_text(
        self, prompt: str
    ) -> tuple[Float[Tensor, "1 tokens width"], Float[Tensor, "1 tokens width"]]:
        """The sentence and the empty sentence, padded to the tokenizer's length."""
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            [prompt, ""], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        whole = self.tokenizer(prompt).input_ids
        if len(whole) > length:
            cut = self.tokenizer.decode(whole[length - 1 : -1])
            logger.warning(
                "The prompt is longer than the text encoder's %d tokens; it does not see: %r", length, cut
            )
        mask = (
            tokens.attention_mask if getattr(self.text_encoder.config, "use_attention_mask", False) else None
        )
        mask = None if mask is None else mask.to(self._device)
        vectors = self.text_encoder(tokens.input_ids.to(self._device), attention_mask=mask)[0].to(
            self.unet.dtype
        )
        return vectors[:1], vectors[1:]

    def _encode(self, images: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views 4 h w"]:
        """Unscaled latents of images in [0, 1]: the mode of the VAE's distribution."""
        return self.vae.encode((2 * images - 1).to(self.vae.dtype)).latent_dist.mode().to(self.unet.dtype)

    def _decode(self, latents: Float[Tensor, "views 4 h w"]) -> Float[Tensor, "views 3 height width"]:
        images = self.vae.decode(
            latents.to(self.vae.dtype) / self.vae.config.scaling_factor, return_dict=False
        )[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)


def guidance_weights(guidance_scale: float, image_guidance_scale: float) -> tuple[float, float, float]:
    """Weights of the branches (text and image, image alone, nothing) in the guided prediction.

    InstructPix2Pix, eq. 3: e_u + s_I (e_I - e_u) + s_T (e_TI - e_I), collected by branch. The weights add up
    to 1.
    """
    return guidance_scale, image_guidance_scale - guidance_scale, 1.0 - image_guidance_scale


def _takes_generator(scheduler: Any) -> bool:
    import inspect

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
