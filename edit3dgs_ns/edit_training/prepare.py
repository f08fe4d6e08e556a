"""Everything that an edit needs besides optimizers; what can go wrong quickly comes first, loading the diffusion model last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nerfstudio.utils.rich_utils import CONSOLE

from edit3dgs_ns.edit_training.cost import planned_cost
from edit3dgs_ns.edit_training.fit import EditFit, held_faces
from edit3dgs_ns.edit_training.loss import describe_loss, make_edit_loss
from edit3dgs_ns.edit_training.masks import make_keep_masks
from edit3dgs_ns.edit_training.options import EditOptions
from edit3dgs_ns.edit_training.plan import RunPlan
from edit3dgs_ns.edit_training.settings import make_schedule, run_settings
from edit3dgs_ns.editing.editor import requests_at_once
from edit3dgs_ns.editing.masks.keep_auto import Masks
from edit3dgs_ns.editing.schedule import EditSchedule
from edit3dgs_ns.training.datamanager import AvatarDatamanager
from edit3dgs_ns.training.model import RiggedSplatfactoModel
from edit3dgs_ns.training.surface_maps import AvatarMaps


@dataclass
class PreparedEdit:
    """An edit that is ready for an `EditLoop`."""

    config: EditOptions
    datamanager: AvatarDatamanager
    model: RiggedSplatfactoModel
    schedule: EditSchedule
    """Which views each round edits; its `round` is the one that is due."""
    maps: AvatarMaps
    keep: Masks
    fit: EditFit
    editor: Any
    """The diffusion model, an `Editor`. Not among the modules of a pipeline, and so not in its checkpoints."""
    settings: dict[str, Any]
    """What the edits depend on; see `run_settings`."""
    delay: int = 0
    """Final steps done before the run was given more rounds; see `RunPlan`."""
    looked_at: int = 0
    """Edited views when it was last looked whether they ask for another form; see `Grower`."""
    form_changed: bool = False
    """Whether they did."""
    expression_decided: bool = False
    """Whether it was looked what they change in expression; see `ExpressionFollower`."""

    @property
    def plan(self) -> RunPlan:
        """Which step does what, as far as it is known: the rounds may end early."""
        config = self.config
        return RunPlan(
            config.steps_before_edits,
            self.schedule.due_rounds,
            config.edit_every,
            config.final_steps,
            self.delay,
            config.rounds_at_once,
        )


def prepare_edit(
    config: EditOptions,
    datamanager: AvatarDatamanager,
    model: RiggedSplatfactoModel,
    load_editor: Callable[[], Any],
) -> PreparedEdit:
    """Prepares an edit of an avatar.

    Args:
        config: of the run.
        datamanager: whose images are edited.
        model: the avatar, loaded; or untrained, to be trained first.
        load_editor: gives the diffusion model; called last.

    Raises:
        UserError, MissingFileError: an option asks for what the rig, the data or this machine does not have.
    """
    schedule = make_schedule(config, datamanager, model.head)
    _warn_of_unedited(config, datamanager, schedule)
    maps = AvatarMaps(datamanager, model)
    keep = make_keep_masks(config, datamanager, model, maps)
    held = held_faces(config, datamanager, model, maps)
    loss = make_edit_loss(config.edit_loss, config.edit_loss_weight, config.model.ssim_lambda)
    CONSOLE.log(describe_loss(loss, config.edit_loss), highlight=False)
    editor = load_editor()
    cost = planned_cost(editor, config.editor, schedule)
    if cost:
        CONSOLE.log(cost, highlight=False)
    _tell_of_idle_workers(config, editor)
    settings = run_settings(
        config,
        base_steps=config.steps_before_edits,
        loss=loss.name,
        schedule=schedule,
        editor=editor.settings,
        keep=keep,
        datamanager=datamanager,
    )
    fit = EditFit(config, model, loss, held)
    return PreparedEdit(config, datamanager, model, schedule, maps, keep, fit, editor, settings)


def _tell_of_idle_workers(config: EditOptions, editor: Any) -> None:
    workers = requests_at_once(editor)
    if workers > config.rounds_at_once and editor.views_depend:
        CONSOLE.log(
            f"--pipeline.editor.workers: views of a round agree, so each round is edited by one of {workers} workers. "
            f"--pipeline.rounds-at-once {workers} gives all of them work.",
            highlight=False,
        )


def limit_to_base_training(config: EditOptions) -> None:
    """Changes the model's options: growth and motion training end with the base training, unless asked for."""
    if not config.densify:
        config.model.stop_split_at = min(config.model.stop_split_at, config.steps_before_edits)
    if config.avatar is not None and not config.edit_motion:
        config.model.fine_tune_motion = False


def _warn_of_unedited(config: EditOptions, datamanager: AvatarDatamanager, schedule: EditSchedule) -> None:
    total = len(datamanager.train_dataset)
    never = total - len(schedule.views())
    if config.train_on == "mixed" and never:
        CONSOLE.print(
            f"[bold yellow]Warning:[/bold yellow] --pipeline.train-on mixed: no round edits {never} of the {total} training "
            "images, which will hold the avatar to its old appearance. Use more rounds, or --pipeline.train-on edited.",
            highlight=False,
        )
