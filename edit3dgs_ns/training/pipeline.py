"""The pipeline of an avatar: what `ns-eval` reports of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Type  # noqa: UP035  (tyro reads these at run time)

from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from torch import Tensor

from edit3dgs_ns.capture.transforms import CyConvention
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.splats.checkpoints import BACKDROP, PLAYS
from edit3dgs_ns.splats.world_splats import Backdrop
from edit3dgs_ns.training.datamanager import AvatarDatamanager, AvatarDatamanagerConfig
from edit3dgs_ns.training.model import RiggedSplatfactoModelConfig
from edit3dgs_ns.training.one_camera import NOTE, fill_unseen_of

TASKS = {"novel_view": "val", "self_reenactment": "test"}
"""What a split of a capture measures: the held-out camera, and the sequence not trained on."""


@dataclass
class AvatarPipelineConfig(VanillaPipelineConfig):
    """An avatar and its capture."""

    _target: Type = field(default_factory=lambda: AvatarPipeline)  # noqa: UP006
    """target class to instantiate"""
    datamanager: AvatarDatamanagerConfig = field(default_factory=AvatarDatamanagerConfig)
    """specifies the datamanager config"""
    model: RiggedSplatfactoModelConfig = field(default_factory=RiggedSplatfactoModelConfig)
    """specifies the model config"""

    def check(self) -> None:
        """Raises a ValueError or FileNotFoundError for what can be known to be wrong before anything is written."""
        manager = self.datamanager
        parser = deepcopy(manager.dataparser)
        if manager.data is not None:
            parser.data = manager.data
        outputs = parser.setup().get_dataparser_outputs(split="train")
        warn_of_faults(outputs.metadata, getattr(parser, "cy", "auto"))


class AvatarPipeline(VanillaPipeline):
    """Nerfstudio's pipeline, which evaluates the held-out camera and the sequence not trained on one by one."""

    datamanager: AvatarDatamanager
    _plays: str | None = None

    def __init__(
        self, config: AvatarPipelineConfig, device: str, test_mode: Any = "val", *args: Any, **kwargs: Any
    ):
        super().__init__(config, device, test_mode, *args, **kwargs)
        self._ask_for_times()
        if test_mode == "val" and self.model.one_camera:
            CONSOLE.print(NOTE, highlight=False)

    def complete_avatar(self, settle: bool = True) -> None:
        """Completes the avatar where no training camera shows it; `settle` as in `one_camera.fill_unseen_of`."""
        fill_unseen_of(self.model, self.datamanager, settle=settle)

    @contextmanager
    def completed(self, keep: bool) -> Iterator[dict[str, Tensor]]:
        """To be saved in: the avatar is complete. Afterwards it is so only with `keep`; else training goes on with what it had, and
        does not wait for the Gaussians to settle.

        Yields:
            What training goes on with; nothing with `keep`.
        """
        params = self.model.gauss_params
        before = {} if keep else {name: value.detach().clone() for name, value in params.items()}
        self.complete_avatar(settle=keep)
        try:
            yield before
        finally:
            for name, value in before.items():
                params[name].data.copy_(value)
            self.model.forget_shown()

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load a checkpoint."""
        self._plays = loaded_state.get(PLAYS)
        super().load_pipeline(loaded_state, step)
        if (backdrop := loaded_state.get(BACKDROP)) is not None:
            self.model.backdrop = Backdrop.from_state(backdrop).to(self.device)
        self._ask_for_times()

    @property
    def plays(self) -> str | None:
        """What the run shows instead of its capture; None for an avatar's own run."""
        return self._plays

    def _ask_for_times(self) -> None:
        # `ns-render camera-path` (and `dataset`, whose cameras have times): the viewer, which has none, is in mode "test".
        self.model.needs_camera_times = self.test_mode == "inference" and self.model.head.num_timesteps > 1

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ) -> dict[str, float]:
        """The quality of the avatar on all images that it was not trained on.

        Returns:
            From `ns-eval` `novel_view_psnr` and so on of the held-out camera, `self_reenactment_psnr` and so on of the sequence
            not trained on, how many images there were, and without a prefix what Nerfstudio reports: the split `test`. During a
            training the held-out camera alone.

        Raises:
            ValueError: there is nothing held out, or the run plays a motion that no image shows.
        """
        if self.test_mode != "test":
            result: dict[str, float] = super().get_average_eval_image_metrics(step, output_path, get_std)
            return result
        if self._plays is not None:
            raise UserError(
                f"This run plays {self._plays}: no captured image shows it, so there is nothing to compare with. "
                "Evaluate the run of the avatar itself; reenactment.json in this run's folder names it."
            )
        figures: dict[str, float] = {}
        for task, split in TASKS.items():
            figures |= self._measured(task, split, step, output_path, get_std)
        if not figures:
            raise UserError(
                f"{self.datamanager.config.dataparser.data}: neither `val` nor `test` lists an image, so there is nothing "
                "to evaluate on. Use a capture with held-out frames."
            )
        prefix = "self_reenactment_" if "self_reenactment_psnr" in figures else "novel_view_"
        return _without(prefix, figures) | figures

    def _measured(
        self, task: str, split: str, step: int | None, output_path: Path | None, get_std: bool
    ) -> dict[str, float]:
        images = self.datamanager.held_out(split)
        if not len(images):
            CONSOLE.print(f"{task}: not measured, the capture has no images in {split!r}.", highlight=False)
            return {}
        # Nerfstudio wants std from more than one image.
        figures = self.get_average_image_metrics(images, task, step, output_path, get_std and len(images) > 1)
        return {f"{task}_{name}": value for name, value in figures.items()} | {f"{task}_images": len(images)}


def warn_of_faults(metadata: Mapping[str, Any], cy: CyConvention) -> None:
    """Looks at a few images, and warns of what `edit3dgs doctor --data` would find there: it may be wrong, so training goes on."""
    if metadata.get("flame_motion") is None or metadata.get("capture") is None:
        return
    from edit3dgs_ns.capture.check_content import diagnose_capture
    from edit3dgs_ns.capture.transforms import readable_frames

    folder = metadata["capture"]
    frames = [frame.counted_from(cy) for frame in readable_frames(folder)]
    heads = {metadata["head"]} if metadata.get("head") else set()
    for fault in diagnose_capture(frames, heads, metadata.get("flame_model_path"), all_frames=False).faults:
        mended = ", and writes a mended copy with --repair OUT" if fault.repair is not None else ""
        CONSOLE.print(
            f"[bold yellow]Warning:[/bold yellow] {escape(str(folder))}: {escape(fault.what)}. "
            f"`edit3dgs doctor --data {escape(str(folder))}` says more{mended}.",
            highlight=False,
            soft_wrap=True,
        )


def _without(prefix: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}
