"""`edit3dgs`: train an avatar, or take a trained one, and edit it while fitting it to the edits.

The run, step by step: `base_steps` on the capture (none with `--pipeline.avatar`), then `rounds` times (or until the
edits have stopped changing anything) an edit and `edit_every` steps, then `final_steps` with falling learning
rates. Everything about a step follows from its number, so that a run that was stopped goes on. `EditLoop` does the edits; this is
its side of Nerfstudio.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Type  # noqa: UP035  (tyro reads these at run time)

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from edit3dgs_ns.edit_training.checks import check_options, load_editor_of
from edit3dgs_ns.edit_training.options import EditOptions
from edit3dgs_ns.edit_training.plan import RunPlan
from edit3dgs_ns.edit_training.settings import check_same_run
from edit3dgs_ns.edit_training.train_lock import viewer_may_draw
from edit3dgs_ns.training.datamanager import AvatarDatamanager
from edit3dgs_ns.training.model import RiggedSplatfactoModel
from edit3dgs_ns.training.one_camera import fill_unseen_of
from edit3dgs_ns.training.pipeline import AvatarPipeline

if TYPE_CHECKING:
    from edit3dgs_ns.edit_training.loop import EditLoop
    from edit3dgs_ns.edit_training.prepare import PreparedEdit


@dataclass
class EditPipelineConfig(EditOptions):
    """Edits an avatar as an instruction says, given by --prompt."""

    _target: Type = field(default_factory=lambda: EditPipeline)  # noqa: UP006
    """target class to instantiate"""

    def check(self) -> None:
        """Raises a ValueError or FileNotFoundError for what can be known to be wrong before anything is written."""
        check_options(self)
        super().check()


class EditPipeline(AvatarPipeline):
    """The pipeline of `edit3dgs`."""

    config: EditPipelineConfig
    datamanager: AvatarDatamanager

    def __init__(
        self,
        config: EditPipelineConfig,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: Any = None,
    ):
        training = test_mode == "val"
        if training:
            check_options(config, world_size)
        from edit3dgs_ns.edit_training.prepare import limit_to_base_training

        limit_to_base_training(config)
        super().__init__(config, device, test_mode, world_size, local_rank, grad_scaler)
        self._resumed: dict[str, Any] = {}
        self._edit: PreparedEdit | None = None
        self._loop: EditLoop | None = None
        if training:
            self._edit = self._prepare()

    # -- the plan, for the viewer ----------------------------------------------------------------------------

    @property
    def base_steps(self) -> int:
        """Steps before the first edit."""
        return self.config.steps_before_edits

    @property
    def total_steps(self) -> int:
        """Steps of the whole run, as far as it is known: it may converge early."""
        return self._plan.total_steps

    @property
    def schedule(self) -> Any:
        """The rounds of a training run; None where nothing is trained."""
        return None if self._edit is None else self._edit.schedule

    @property
    def judged(self) -> str:
        """What became of edited views that were not good at once, in a few words; empty if all were."""
        if self._loop is None:
            return ""
        from edit3dgs_ns.edit_training.judged_edits import summary

        return summary(self._loop.rounds.history.batches)

    @property
    def _editor(self) -> Any:
        """The diffusion model of a training run; None where nothing is trained. Nerfstudio's viewer searches public attributes."""
        return None if self._edit is None else self._edit.editor

    @property
    def _plan(self) -> RunPlan:
        config = self.config
        if self._edit is not None:
            return self._edit.plan
        return RunPlan(
            config.steps_before_edits,
            config.rounds,
            config.edit_every,
            config.final_steps,
            rounds_at_once=config.rounds_at_once,
        )

    # -- Nerfstudio's side -----------------------------------------------------------------------------------

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Edits happen before a training step, in the train loop."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        trainer = training_callback_attributes.trainer
        if trainer is None or self._edit is None:
            return callbacks
        loop = self._loop = self._start(trainer, self._edit)
        where = TrainingCallbackLocation

        def before(step: int) -> None:
            if writer.is_initialized():
                writer.GLOBAL_BUFFER["max_iter"] = self.total_steps
            loop.before_step(step)

        def end(step: int) -> None:
            # The loop's length was fixed before it began: this ends a run that has converged.
            trainer.stop_training = trainer.stop_training or loop.finished_at(step + 1)

        def after(step: int) -> None:
            from edit3dgs_ns.edit_training.versions import RunHistory

            loop.finish()
            RunHistory(trainer.base_dir).keep_current()

        return [
            TrainingCallback([where.BEFORE_TRAIN_ITERATION], before),
            *callbacks,
            TrainingCallback([where.AFTER_TRAIN_ITERATION], end),
            TrainingCallback([where.AFTER_TRAIN], after),
        ]

    def complete_avatar(self, settle: bool = True) -> None:
        """As for every avatar; what the edit holds stays as it is."""
        held = None if self._edit is None else self._edit.fit.held_faces
        fill_unseen_of(self._avatar_model, self.datamanager, held, settle=settle)

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load a checkpoint; a training run goes on only with what the same command has saved.

        Raises:
            ValueError: the checkpoint is of another method, or of an edit with other options.
        """
        if self._edit is not None:
            check_same_run(loaded_state.get("_extra_state"), self._edit.settings)
        super().load_pipeline(loaded_state, step)

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint says of the edit, as plain values."""
        from edit3dgs_ns.edit_training.loop import loop_state

        return self._resumed if self._edit is None else loop_state(self._edit)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Keep what the checkpoint says until training begins."""
        self._resumed = state

    # -- set-up ----------------------------------------------------------------------------------------------

    def _prepare(self) -> PreparedEdit:
        """Everything that a training run needs and an evaluation does not."""
        from edit3dgs_ns.edit_training.prepare import prepare_edit
        from edit3dgs_ns.editing.thread_safe_editor import ThreadSafeEditor
        from edit3dgs_ns.training.load_avatar import load_avatar

        config, model = self.config, self._avatar_model
        if config.avatar is not None:
            path = load_avatar(model, config.avatar)
            CONSOLE.log(escape(f"Editing the avatar of {path}"))
        return prepare_edit(config, self.datamanager, model, lambda: ThreadSafeEditor(self._load_editor()))

    @property
    def _avatar_model(self) -> RiggedSplatfactoModel:
        model = self.model
        assert isinstance(model, RiggedSplatfactoModel)
        return model

    def _load_editor(self) -> Any:
        editor = load_editor_of(self.config.editor, self.device)
        warning = editor.unknown_instruction(self.config.prompt)
        if warning is not None:
            CONSOLE.print(f"[bold yellow]Warning:[/bold yellow] {escape(warning)}", highlight=False)
        return editor

    def _start(self, trainer: Any, edit: PreparedEdit) -> EditLoop:
        """Opens the store, goes on with a resumed run, and sets the run's length."""
        from edit3dgs_ns.edit_training.loop import EditLoop

        run, resumed_run = trainer.base_dir, _resumed_run(trainer.config)
        run.mkdir(parents=True, exist_ok=True)
        if self.config.avatar is not None:
            from edit3dgs_ns.edit_training.originals import begin_history

            begin_history(run, self.config.avatar, resumed_run, self.datamanager, self._avatar_model)
        loop = EditLoop(
            edit,
            trainer.optimizers,
            run,
            resumed=resumed_run,
            # With this, a run that is killed while it edits goes on from here and not from the last `steps_per_save`.
            before_round=lambda step: trainer.save_checkpoint(step - 1),
            while_editing=lambda: _may_be_interrupted(trainer, self),
        )
        if self._resumed:
            loop.resume(self._resumed, trainer._start_step)
        left = max(self.total_steps - trainer._start_step, 0)  # none for a run that was over
        trainer.config.max_num_iterations = min(trainer.config.max_num_iterations, left)
        return loop


@contextmanager
def _may_be_interrupted(trainer: Any, pipeline: EditPipeline) -> Iterator[None]:
    """While a round is edited: by whoever draws, and by whoever ends the process."""
    with trainer.stop_request.interrupts(), viewer_may_draw(trainer, pipeline):
        yield


def _resumed_run(config: Any) -> Path | None:
    """The folder of the run that a trainer's config resumes."""
    loaded = config.load_dir if config.load_dir is not None else config.load_checkpoint
    if loaded is None:
        return None
    return Path(loaded).parent.parent if Path(loaded).suffix == ".ckpt" else Path(loaded).parent
