"""An `Editor` on any of diffusers' editing pipelines: each view by the family's own `__call__`, all views in agreement.

See `view_runs.py` for how the views' pipelines are kept in step, and `families.py` for what differs between families. With pure
noise, nothing kept and views that do not agree, every view is what the pipeline makes of it for the same seed.
"""

from __future__ import annotations

import copy
import inspect
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from edit3dgs_ns.editing.agreement.key_views import draw_key_views, order_around_head, runs_of
from edit3dgs_ns.editing.agreement.matching import make_correspondence
from edit3dgs_ns.editing.agreement.shared_predictions import SharedPredictions
from edit3dgs_ns.editing.agreement.sharing import SharingOptions
from edit3dgs_ns.editing.diffusion.detail import detail_settings, round_trip, with_detail
from edit3dgs_ns.editing.diffusion.editor_defaults import EditorDefaults
from edit3dgs_ns.editing.diffusion.families import Call, Family, no_shared_attention
from edit3dgs_ns.editing.diffusion.inpainting import LatentKeeper, latent_mask
from edit3dgs_ns.editing.diffusion.latent_layout import LatentLayout
from edit3dgs_ns.editing.diffusion.view_pipelines import ViewPipelines
from edit3dgs_ns.editing.diffusion.view_runs import Finished as RunFinished
from edit3dgs_ns.editing.diffusion.view_runs import Prediction, Ready, ViewRun
from edit3dgs_ns.editing.diffusion.work import Work, weight_bytes
from edit3dgs_ns.editing.editor import EditRequest, EditResult, Finished, Progress
from edit3dgs_ns.editing.framing import Frame, to_tensor
from edit3dgs_ns.editing.sigma_predictions import space_of


class PipelineEditor:
    """Edits the views of a batch together, or each by itself.

    Args:
        pipeline: a loaded diffusers pipeline of one of `FAMILIES`.
        family: which.
        name: what to call the model in records.
        defaults: what holds when a request leaves it open.
        sharing: how views are made to agree; `rig` or `none`.
        device: where it computes; that of the pipeline if not given.
        free_memory: called after every edit, to bring offloaded parts back to main memory.
        references: further images that the prompt may speak of, for families that take them.
        detail: how much of the originals' detail that the autoencoder loses is given back; see `detail.py`.
    """

    def __init__(
        self,
        pipeline: Any,
        family: Family,
        *,
        name: str = "custom",
        defaults: EditorDefaults | None = None,
        sharing: SharingOptions | None = None,
        device: torch.device | str | None = None,
        free_memory: Callable[[], None] | None = None,
        references: Sequence[Image.Image] = (),
        detail: float = 0.0,
    ):
        self.references, self.detail = tuple(references), detail
        self._free_memory = free_memory or (lambda: None)
        self.pipeline, self.family, self.name = pipeline, family, name
        self.defaults = defaults or family.defaults
        self.sharing = (sharing or SharingOptions()).completed(self.defaults.share_prediction_until)
        self._device = torch.device(device) if device is not None else pipeline.device
        self._denoiser = getattr(pipeline, family.denoiser)
        self.view_pipelines = ViewPipelines(pipeline, self._device)
        if self.sharing.correspondence == "epipolar":
            raise no_shared_attention(name, family.title)
        space_of(pipeline.scheduler)  # refuses some
        pipeline.set_progress_bar_config(disable=True)

    @property
    def settings(self) -> dict[str, Any]:
        """Name and options as JSON values."""
        return {
            "editor": self.family.class_name,
            "model": self.name,
            "scheduler": type(self.pipeline.scheduler).__name__,
            "resolution": self.defaults.resolution,
            "dtype": str(self._denoiser.dtype).removeprefix("torch."),
            **self.sharing.settings(),
            "self_attention_below": None,
            "references": [sha256(image.tobytes()).hexdigest()[:16] for image in self.references],
            **detail_settings(self.detail),
        }

    @property
    def views_depend(self) -> bool:
        """See `Editor`."""
        return self.sharing.correspondence != "none"

    def unknown_instruction(self, prompt: str) -> str | None:
        """See `Editor`."""
        return self.defaults.unknown_instruction(prompt, self.name)

    @property
    def weight_bytes(self) -> int:
        """See `KnowsCost`."""
        parts = self.pipeline.components.values()
        return weight_bytes(*(part for part in parts if isinstance(part, torch.nn.Module)))

    def evaluations_per_view(
        self,
        noise: float,
        steps: int | None,
        guidance_scale: float | None,
        image_guidance_scale: float | None,
    ) -> int:
        """See `KnowsCost`. Schedules that are shifted to more noise take fewer steps."""
        scale = self.defaults.guidance_scale if guidance_scale is None else guidance_scale
        return self.family.branches(scale) * _steps_of(steps or self.defaults.steps, noise)

    def frame(self, height: int, width: int) -> Frame:
        """How images of this size lie in the canvas that the model takes."""
        return self.family.frame(height, width, self._size_multiple, self.defaults.resolution)

    @property
    def _size_multiple(self) -> int:
        """Image sides must be multiples of this."""
        if self.family.packed:
            return 2 * self.pipeline.vae_scale_factor
        return self.pipeline.vae_scale_factor * 2 ** (len(self._denoiser.config.down_block_types) - 1)

    @torch.no_grad()
    def edit(
        self, request: EditRequest, progress: Progress | None = None, finished: Finished | None = None
    ) -> EditResult:
        """Edit the batch.

        Args:
            request: the batch.
            progress: called whenever a view is encoded, has gone through a denoising step, or is decoded.
            finished: called with every view as soon as it is decoded.

        Raises:
            ValueError: the request lacks what the correspondence needs, or asks for what the family has not.
            torch.OutOfMemoryError: a view does not fit the device's memory.
        """
        started = time.perf_counter()
        self.defaults.check_scales(request, self.name, self.family.title)
        batch = _Batch(self, request, progress)
        with batch.evaluations_counted(self._denoiser):
            try:
                images = batch.edited(finished)
            except torch.OutOfMemoryError as error:
                raise torch.OutOfMemoryError(
                    f"The device has not enough memory for one view of {self.name} at this image size: {error}\nTry "
                    "--pipeline.editor.offload model, --pipeline.editor.dtype bfloat16, or a lower "
                    "--pipeline.editor.resolution."
                ) from error
            finally:
                batch.abandon()
                self._free_memory()
        return EditResult(
            images=images,
            settings={**self.settings, **batch.settings, "first_timestep": batch.first_timestep},
            unet_evaluations=batch.evaluations,
            seconds=time.perf_counter() - started,
        )


@dataclass
class _Shared:
    """What makes a batch's predictions agree."""

    predictions: SharedPredictions
    runs: list[tuple[int, ...]]
    seed: int
    edited: list[int]
    """Positions of the views that the network predicts; the others are anchors, whose clean latents are known."""
    num_views: int

    def __call__(self, predicted: Tensor, noisy: Tensor, t: Tensor, step: int, last: bool) -> Tensor:
        if not self.predictions.shares_step(last=last):
            return predicted
        keys = draw_key_views(self.runs, self.seed, step)
        # What stands in an anchor's place does not matter: it is replaced by what is known.
        given, started = (_spread(values, self.edited, self.num_views) for values in (predicted, noisy))
        return self.predictions(given, started, t, keys)[self.edited]


def _spread(values: Tensor, positions: list[int], count: int) -> Tensor:
    result = values.new_zeros(count, *values.shape[1:])
    result[positions] = values
    return result


class _Batch:
    """One request on its way through the pipelines of its views."""

    def __init__(self, editor: PipelineEditor, request: EditRequest, progress: Progress | None):
        self._editor, self._request = editor, request
        self.settings = editor.defaults.settings_for(request)
        steps = _steps_of(self.settings["steps"], request.noise)
        known = request.anchors if editor.sharing.shares_predictions else ()
        # Anchors that lead by what is known of them need no evaluation of the network.
        self._edited = [view for view in range(request.num_views) if view not in known]
        self._work = Work(progress, len(self._edited), 1 if request.noise >= 1 else 2, steps)
        self._frame = editor.frame(*request.images.shape[1:3])
        self._correspondence = make_correspondence(
            editor.sharing.correspondence, request, self._frame, editor._device
        )  # first, for it may refuse the request
        pipeline = editor.pipeline
        self._layout = LatentLayout(
            editor.view_pipelines.vae,
            self._frame.canvas,
            pipeline.vae_scale_factor,
            editor._device,
            packed=editor.family.packed,
        )
        self._generators = [torch.Generator().manual_seed(request.view_seed(view)) for view in self._edited]
        self._views: list[ViewRun] = []
        self.evaluations, self.first_timestep = 0, 0.0

    def edited(self, finished: Finished | None) -> Float[np.ndarray, "views height width 3"]:
        """The edited views; anchors that lead by what is known of them as they were given."""
        request, editor = self._request, self._editor
        noise = self._noise()
        starts = self._layout.given(self._start(noise))
        scheduler = copy.deepcopy(editor.pipeline.scheduler)
        self._views = [
            ViewRun(
                partial(self._call, view, start),
                scheduler,
                self._begin,
                unit_start=request.noise < 1,
            )
            for view, start in zip(self._edited, starts.split(1), strict=True)
        ]
        for view in self._views:
            event = view.advance()
            assert isinstance(event, Ready), "a pipeline sets its schedule before it predicts"
            self._work.steps = len(scheduler.timesteps)
            self._work.add()
        self.first_timestep = float(scheduler.timesteps[0])
        return self._decoded(self._denoised(scheduler, noise), finished)

    def abandon(self) -> None:
        """Ends the pipelines that are not done."""
        for view in self._views:
            view.abandon()

    @contextmanager
    def evaluations_counted(self, denoiser: torch.nn.Module) -> Iterator[None]:
        """Within this, evaluations of the network are counted, one for every view and guidance branch."""

        def count(module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            given = args[0] if args else options["hidden_states"]
            self.evaluations += len(given)

        handle = denoiser.register_forward_pre_hook(count, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    # -- before the first step -----------------------------------------------------------------------------------

    def _noise(self) -> Float[Tensor, "views channels h w"]:
        latents = self._layout.noise(
            self._generators, self._editor.family.latent_channels(self._editor.pipeline), self._dtype
        )
        return latents.to(self._editor._device)

    @property
    def _dtype(self) -> torch.dtype:
        return self._editor._denoiser.dtype

    def _encoded(self, images: Float[np.ndarray, "views height width 3"]) -> Tensor:
        return self._layout.encode(self._frame.enter(to_tensor(images, self._editor._device)))

    def _start(self, noise: Float[Tensor, "views channels h w"]) -> Float[Tensor, "views channels h w"]:
        """Pure noise, or the current images with noise."""
        amount = self._request.noise
        if amount >= 1:
            return noise
        space = space_of(copy.deepcopy(self._editor.pipeline.scheduler))
        current = self._layout.encode(
            self._frame.enter(to_tensor(self._request.images[self._edited], self._editor._device)),
            self._work.add,
        )
        return space.start(current, noise.float(), amount, self.settings["steps"]).to(self._dtype)

    def _begin(self, scheduler: Any) -> None:
        if self._request.noise < 1:
            space_of(scheduler).begin_at(self._request.noise)

    @cached_property
    def _condition(self) -> Float[Tensor, "views 3 height width"]:
        """The edited views' originals in their canvas, as 8 bits can show them: pipelines take images."""
        canvas = self._frame.enter(to_tensor(self._request.originals[self._edited], torch.device("cpu")))
        return (canvas * 255).round() / 255

    def _call(self, view: int, latents: Tensor, scheduler: Any) -> Float[Tensor, "1 3 height width"]:
        """The pipeline of one view, in its own thread."""
        editor, (height, width) = self._editor, self._frame.canvas
        original = _as_image(self._condition[self._edited.index(view)])
        call = Call(self._request.prompt, original, height, width, self.settings, editor.references)
        pipeline = editor.view_pipelines.make(scheduler)
        return pipeline(
            **editor.family.arguments(call),
            **editor.defaults.text_options,
            latents=latents,
            output_type="pt",
            return_dict=False,
        )[0]

    # -- the loop ------------------------------------------------------------------------------------------------

    def _denoised(
        self, scheduler: Any, noise: Float[Tensor, "views channels h w"]
    ) -> Iterator[tuple[int, Any]]:
        """Every view's number and what its pipeline returns, after all have gone through the schedule."""
        shared, keeper, layout = self._shared(scheduler), self._keeper(scheduler, noise), self._layout
        takes = inspect.signature(scheduler.step).parameters
        extra = {"generator": self._generators} if "generator" in takes else {}
        scale = getattr(scheduler, "scale_model_input", lambda latents, t: latents)
        timesteps = scheduler.timesteps
        answers: list[Tensor | None] = [None] * len(self._views)
        for step in range(len(timesteps)):
            asked = [self._predict(view, answer) for view, answer in zip(self._views, answers, strict=True)]
            t = asked[0].timestep
            current, predicted = (
                torch.cat([getattr(a, part) for a in asked]) for part in ("latents", "predicted")
            )
            if shared is not None:
                noisy = layout.unpack(scale(current, t))
                last = step == len(timesteps) - 1
                predicted = layout.pack(shared(layout.unpack(predicted), noisy, t, step, last))
            latents = scheduler.step(predicted, t, current, **extra, return_dict=False)[0]
            if keeper is not None:
                t_next = timesteps[step + 1] if step + 1 < len(timesteps) else None
                latents = layout.pack(keeper.apply(layout.unpack(latents), t_next, step, len(timesteps)))
            answers = list(latents.split(1))
        for number, view, answer in zip(self._edited, self._views, answers, strict=True):
            event = view.advance(answer)
            assert isinstance(event, RunFinished), "the schedule is at its end"
            yield number, event.result

    def _predict(self, view: ViewRun, latents: Tensor | None) -> Prediction:
        event = view.advance(latents)
        assert isinstance(event, Prediction), "one prediction for every step"
        self._work.add()
        return event

    def _shared(self, scheduler: Any) -> _Shared | None:
        request, options = self._request, self._editor.sharing
        if self._correspondence is None or not options.shares_predictions:
            return None
        scale, offset = self._layout.normalisation
        anchors = list(request.anchors)
        predictions = SharedPredictions(
            space_of(scheduler),
            self._correspondence,
            options.until,
            anchors,
            self._encoded(request.images[anchors]) if anchors else None,
            scale,
            offset,
        )
        order = order_around_head(request.c2w, request.timesteps)
        runs = runs_of(order, options.views_per_key, request.anchors)
        return _Shared(predictions, runs, request.seed, self._edited, request.num_views)

    def _keeper(self, scheduler: Any, noise: Float[Tensor, "views channels h w"]) -> LatentKeeper | None:
        request = self._request
        if request.keep_mask is None:
            return None
        kept = request.keep_mask[self._edited]
        mask = latent_mask(kept, self._frame, self._layout.size, self._editor._device)
        # What is kept is what the pipelines are conditioned on, which is encoded already.
        original = self._layout.encode(self._condition.to(self._editor._device)).to(self._dtype)
        return LatentKeeper(original, mask, noise, space_of(scheduler), request.keep_options)

    # -- after the last step -------------------------------------------------------------------------------------

    def _decoded(
        self, results: Iterator[tuple[int, Any]], finished: Callable[[int, np.ndarray], None] | None
    ) -> Float[np.ndarray, "views height width 3"]:
        request = self._request
        images = request.images.copy()
        for view, canvas in results:
            image = self._with_detail(view, self._frame.leave(canvas.float()))
            images[view] = image[0].permute(1, 2, 0).cpu().numpy()
            self._work.add()
            if finished is not None:
                finished(view, images[view])
        return images

    def _with_detail(
        self, view: int, edited: Float[Tensor, "1 3 height width"]
    ) -> Float[Tensor, "1 3 height width"]:
        editor, frame = self._editor, self._frame
        if editor.detail <= 0:
            return edited
        condition = self._condition[self._edited.index(view)][None].to(edited.device)
        decoded = frame.leave(round_trip(editor.view_pipelines.vae, condition))
        original = to_tensor(self._request.originals[view : view + 1], edited.device)
        cells = frame.cells(editor.pipeline.vae_scale_factor)
        return with_detail(edited, original, decoded, cells, editor.detail)


def _steps_of(steps: int, noise: float) -> int:
    """About how many steps of a schedule are taken from this noise on."""
    return max(1, math.ceil(steps * min(noise, 1.0)))


def _as_image(canvas: Float[Tensor, "3 height width"]) -> Image.Image:
    """An image of 8 bits, as every pipeline takes them."""
    return Image.fromarray((canvas * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
