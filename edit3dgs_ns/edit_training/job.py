"""What a user of the viewer asks for: one edit, as options of the `edit3dgs` pipeline."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from edit3dgs_ns.edit_training.pipeline import EditPipelineConfig
    from edit3dgs_ns.training.model import RiggedSplatfactoModel


@dataclass(frozen=True)
class EditJob:
    """One edit, or the preview of one."""

    prompt: str
    model: str
    """The diffusion model: `demo`, `demo-flow`, a hub id or a folder."""
    guidance_scale: float | None = None
    """None: the model's own."""
    image_guidance_scale: float | None = None
    keep: str = "auto"
    only: str = "none"
    reference: str = "none"
    """Files of images that the prompt may speak of, separated by commas."""
    rounds: int = 20
    views_per_edit: int = 4

    @property
    def references(self) -> tuple[Path, ...]:
        """The same as paths."""
        named = () if self.reference == "none" else self.reference.split(",")
        return tuple(Path(name.strip()).expanduser() for name in named if name.strip())

    def options(self) -> dict[str, Any]:
        """For the record, as JSON values."""
        return {
            "editor": self.model,
            "guidance_scale": self.guidance_scale,
            "image_guidance_scale": self.image_guidance_scale,
            "keep": self.keep,
            "only": self.only,
            "reference": self.reference,
            "rounds": self.rounds,
            "views_per_edit": self.views_per_edit,
        }


def standard_options(pipeline_config: Any) -> EditPipelineConfig:
    """The options that an edit in the viewer starts from: the run's own if it has edited, else those of `ns-train edit3dgs`."""
    from nerfstudio.configs.method_configs import all_methods
    from nerfstudio.engine.trainer import TrainerConfig

    from edit3dgs_ns.edit_training.pipeline import EditPipelineConfig

    standard = deepcopy(cast(TrainerConfig, all_methods["edit3dgs"]).pipeline)
    assert isinstance(standard, EditPipelineConfig)
    if isinstance(pipeline_config, EditPipelineConfig):
        _take_over(deepcopy(pipeline_config), standard)
    return standard


def _take_over(own: Any, into: Any) -> None:
    """What the config of a run says; it may be older than options that have come since."""
    for option in fields(into):
        if option.name not in vars(own):
            continue
        value = vars(own)[option.name]
        if option.name == "editor":
            _take_over(value, into.editor)
        else:
            setattr(into, option.name, value)


def options_of(
    job: EditJob, standard: EditPipelineConfig, avatar: RiggedSplatfactoModel, checkpoint: Path
) -> EditPipelineConfig:
    """The options of `ns-train edit3dgs` that would do this job.

    Args:
        job: what is asked for.
        standard: what it does not say.
        avatar: as it is loaded.
        checkpoint: its file.

    Raises:
        ValueError, FileNotFoundError: an option is wrong; the message names the flag of `ns-train edit3dgs`.
    """
    from edit3dgs_ns.edit_training.checks import check_options
    from edit3dgs_ns.editing.masks.regions import parse_parts

    config = deepcopy(standard)
    config.model = deepcopy(avatar.config)
    config.model.prompt = job.prompt
    config.avatar = checkpoint
    config.rounds, config.views_per_edit = job.rounds, job.views_per_edit
    editor = config.editor
    editor.model, editor.keep, editor.only = job.model, job.keep or "none", job.only or "none"
    editor.reference = job.references
    editor.guidance_scale, editor.image_guidance_scale = job.guidance_scale, job.image_guidance_scale
    if not parse_parts(editor.only):
        config.hold_outside = (
            False  # of a run that has edited a part: now all is edited, and nothing lies outside
        )
    check_options(config)
    return config
