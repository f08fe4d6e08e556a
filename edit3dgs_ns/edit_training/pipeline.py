"""`edit3dgs`: train an avatar, or take a trained one, and edit it while fitting it to the edits.

The run, step by step: `base_steps` on the capture (none with `--pipeline.avatar`), then `rounds` times (or until the
edits have stopped changing anything) an edit and `edit_every` steps, then `final_steps` with falling learning
rates. Everything about a step follows from its number, so that a run that was stopped goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Type  # noqa: UP035  (tyro reads these at run time)

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE

from edit3dgs_ns.edit_training.checks import check_options, load_editor_of
from edit3dgs_ns.edit_training.options import EditOptions
from edit3dgs_ns.edit_training.plan import RunPlan
from edit3dgs_ns.edit_training.settings import check_same_run, make_schedule, run_settings
from edit3dgs_ns.edit_training.train_lock import viewer_may_draw
from edit3dgs_ns.training.datamanager import AvatarDatamanager
from edit3dgs_ns.training.model import RiggedSplatfactoModel
from edit3dgs_ns.training.pipeline import AvatarPipeline


@dataclass
class EditPipelineConfig(EditOptions):
    """Edits an avatar as an instruction says, given by --prompt."""

    _target: Type = field(default_factory=lambda: EditPipeline)  # noqa: UP006
    """target class to instantiate"""


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
        self._prepare_model_config(config)
        super().__init__(config, device, test_mode, world_size, local_rank, grad_scaler)
        self._set_fields()
        if training:
            self._prepare()

    @classmethod
    def around(
        cls,
        config: EditPipelineConfig,
        datamanager: AvatarDatamanager,
        model: RiggedSplatfactoModel,
        editor: Any,
    ) -> EditPipeline:
        """The pipeline of an edit in a viewer: on data, on the avatar of `config.avatar` and with an editor that are loaded."""
        cls._prepare_model_config(config)
        pipeline = cls.__new__(cls)
        torch.nn.Module.__init__(pipeline)
        pipeline.config, pipeline.test_mode, pipeline.world_size = config, "val", 1
        pipeline.datamanager, pipeline._model = datamanager, model
        pipeline._set_fields()
        pipeline._in_viewer = True
        model.train_by(config.model)
        pipeline._prepare(editor)
        return pipeline

    def _set_fields(self) -> None:
        self._editor: Any = None
        self._in_viewer = False
        self._resumed: dict[str, Any] = {}
        self._rounds: Any = None
        self._keep_masks: Any = None
        self._schedule: Any = None
        self._fit: Any = None
        self._maps: Any = None
        self._settings: dict[str, Any] = {}

    # -- the plan --------------------------------------------------------------------------------------------

    @property
    def base_steps(self) -> int:
        """Steps before the first edit."""
        return 0 if self.config.avatar is not None else self.config.base_steps

    @property
    def total_steps(self) -> int:
        """Steps of the whole run, as far as it is known: it may converge early."""
        return self._plan.total_steps

    @property
    def schedule(self) -> Any:
        """The rounds of a training run; None where nothing is trained."""
        return self._schedule

    @property
    def _plan(self) -> RunPlan:
        config = self.config
        rounds = config.rounds if self._schedule is None else self._schedule.due_rounds
        return RunPlan(self.base_steps, rounds, config.edit_every, config.final_steps)

    # -- Nerfstudio's side -----------------------------------------------------------------------------------

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Edits happen before a training step, in the train loop."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        trainer = training_callback_attributes.trainer
        if trainer is None or self._editor is None:
            return callbacks
        self._start(trainer)
        where = TrainingCallbackLocation

        def before(step: int) -> None:
            self._before_step(trainer, step)

        def end(step: int) -> None:
            # The loop's length was fixed before it began: this ends a run that has converged.
            trainer.stop_training = trainer.stop_training or step + 1 >= self.total_steps

        def after(step: int) -> None:
            self._after_training()

        return [
            TrainingCallback([where.BEFORE_TRAIN_ITERATION], before),
            *callbacks,
            TrainingCallback([where.AFTER_TRAIN_ITERATION], end),
            TrainingCallback([where.AFTER_TRAIN], after),
        ]

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load a checkpoint; a training run goes on only with what the same command has saved.

        Raises:
            ValueError: the checkpoint is of another method, or of an edit with other options.
        """
        if self._editor is not None:
            check_same_run(loaded_state.get("_extra_state"), self._settings)
        super().load_pipeline(loaded_state, step)

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint says of the edit: plain values and a tensor."""
        if self._schedule is None:
            return self._resumed
        return {
            "settings": self._settings,
            "schedule": self._schedule.state_dict(),
            "torch_rng": torch.get_rng_state(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Keep what the checkpoint says until training begins."""
        self._resumed = state

    # -- set-up ----------------------------------------------------------------------------------------------

    def _prepare(self, editor: Any = None) -> None:
        """Everything that a training run needs and an evaluation does not; what can go wrong quickly comes first."""
        from edit3dgs_ns.edit_training.fit import EditFit, held_faces
        from edit3dgs_ns.edit_training.loss import make_edit_loss, said_of
        from edit3dgs_ns.edit_training.masks import make_keep_masks
        from edit3dgs_ns.editing.shared_editor import SharedEditor
        from edit3dgs_ns.training.load_avatar import load_avatar
        from edit3dgs_ns.training.surface_maps import AvatarMaps

        config, datamanager, model = self.config, self.datamanager, self._avatar_model
        self._schedule = make_schedule(config, datamanager, model.head)
        self._warn_of_unedited()
        if config.avatar is not None and not self._in_viewer:
            path = load_avatar(model, config.avatar)
            CONSOLE.log(f"Editing the avatar of {path}")
        self._maps = AvatarMaps(datamanager, model)
        self._keep_masks = make_keep_masks(config, datamanager, model, self._maps)
        held = held_faces(config, datamanager, model, self._maps)
        loss = make_edit_loss(config.edit_loss, config.edit_loss_weight, config.model.ssim_lambda)
        CONSOLE.log(said_of(loss, config.edit_loss), highlight=False)
        self._fit = EditFit(config, model, loss, held)
        self._editor = SharedEditor(self._load_editor()) if editor is None else editor
        self._settings = run_settings(
            config,
            base_steps=self.base_steps,
            loss=loss.name,
            schedule=self._schedule,
            editor=self._editor.settings,
            keep=self._keep_masks,
            datamanager=datamanager,
        )

    @property
    def _avatar_model(self) -> RiggedSplatfactoModel:
        model = self.model
        assert isinstance(model, RiggedSplatfactoModel)
        return model

    @staticmethod
    def _prepare_model_config(config: EditPipelineConfig) -> None:
        """Growth and motion training end with the base training, unless asked for."""
        base_steps = 0 if config.avatar is not None else config.base_steps
        if not config.densify:
            config.model.stop_split_at = min(config.model.stop_split_at, base_steps)
        if config.avatar is not None and not config.edit_motion:
            config.model.fine_tune_motion = False

    def _warn_of_unedited(self) -> None:
        total = len(self.datamanager.train_dataset)
        never = total - len(self._schedule.views())
        if self.config.train_on == "mixed" and never:
            CONSOLE.print(
                f"[bold yellow]Warning:[/bold yellow] --pipeline.train-on mixed: no round edits {never} of the {total} training "
                "images, which will hold the avatar to its old look. Use more rounds, or --pipeline.train-on edited.",
                highlight=False,
            )

    def _load_editor(self) -> Any:
        editor = load_editor_of(self.config.editor, self.device)
        warning = editor.unknown_instruction(self._prompt)
        if warning is not None:
            CONSOLE.print(f"[bold yellow]Warning:[/bold yellow] {warning}", highlight=False)
        return editor

    @property
    def _prompt(self) -> str:
        return (self.config.model.prompt or "").strip()

    def _start(self, trainer: Any) -> None:
        """Open the store, go on with a resumed run, and set the run's length."""
        from edit3dgs_ns.edit_training.requests import RequestMaker, RequestOptions
        from edit3dgs_ns.edit_training.rounds import HISTORY_FILE, EditRounds, History

        run, resumed_run = trainer.base_dir, self._resumed_run(trainer)
        run.mkdir(parents=True, exist_ok=True)
        if self.config.avatar is not None and not self._in_viewer:
            from edit3dgs_ns.edit_training.originals import begin_history

            begin_history(run, self.config.avatar, resumed_run, self.datamanager, self._avatar_model)
        options = RequestOptions.of(self._prompt, self.config.editor)
        requests = RequestMaker(self.datamanager, self._avatar_model, options, self._keep_masks, self._maps)
        history = History(
            run / HISTORY_FILE,
            self._prompt,
            self.config.rounds,
            self.base_steps,
            self._editor.settings,
            self._fit.loss.name,
        )
        if resumed_run is not None:
            history.read_batches(resumed_run / HISTORY_FILE)
        history.save()
        self._rounds = EditRounds(
            self.datamanager,
            requests,
            self._editor,
            self._open_store(run, resumed_run),
            history,
            rounds=self.config.rounds,
            anchors=self.config.anchors,
            train_on=self.config.train_on,
        )
        rates = {name: o.param_groups[0]["lr"] for name, o in trainer.optimizers.optimizers.items()}
        rates |= {name: c["optimizer"].lr for name, c in trainer.config.optimizers.items() if name in rates}
        self._fit.set_rates(rates)
        self._resume(trainer._start_step)
        left = max(self.total_steps - trainer._start_step, 1)
        trainer.config.max_num_iterations = min(trainer.config.max_num_iterations, left)

    def _resumed_run(self, trainer: Any) -> Path | None:
        config = trainer.config
        loaded = config.load_dir if config.load_dir is not None else config.load_checkpoint
        if loaded is None:
            return None
        return Path(loaded).parent.parent if Path(loaded).suffix == ".ckpt" else Path(loaded).parent

    def _open_store(self, run: Path, resumed_run: Path | None) -> Any:
        """The store in this run's folder, with all edits of the run that is resumed."""
        from edit3dgs_ns.editing.store import EditStore, settings_hash

        store = EditStore.for_settings(run / "edits", self._settings)
        old = None if resumed_run is None else resumed_run / "edits" / settings_hash(self._settings)
        if old is not None and old.is_dir() and old.resolve() != store.folder.resolve():
            taken = store.copy_from(EditStore(old, self._settings))
            CONSOLE.log(f"Took over {taken} finished edits from {old}")
        return store

    def _resume(self, start_step: int) -> None:
        """Continue the schedule; edits of the rounds before come from the store, and are made again only if
        they are gone."""
        state = self._resumed
        if not state:
            return
        self._schedule.load_state_dict(state["schedule"])
        self._rounds.history.converged_after = self._schedule.ended_after
        begun = self._plan.rounds_begun_before(start_step)
        for number in range(begun):
            self._rounds.run(self._schedule.batch(number), start_step)
        self._schedule.round = begun
        torch.set_rng_state(
            state["torch_rng"].cpu().to(torch.uint8)
        )  # last: edits made again draw numbers too

    # -- training --------------------------------------------------------------------------------------------

    def _before_step(self, trainer: Any, step: int) -> None:
        if writer.is_initialized():
            writer.GLOBAL_BUFFER["max_iter"] = self.total_steps
        optimizers, schedule = trainer.optimizers.optimizers, self._schedule
        self._fit.set_learning_rates(optimizers, step, self._plan)
        if step < self.base_steps:
            return
        self._fit.begin(optimizers)
        if not schedule.finished and self._plan.begins_round(step, schedule.round):
            # With this, a run that is killed while it edits goes on from here and not from the last
            # `steps_per_save`.
            trainer.save_checkpoint(step - 1)
            with viewer_may_draw(trainer, self):
                self._rounds.run(schedule.current, step)
            schedule.advance()
            if self._rounds.converged(schedule.round, self.config.stop_when_converged):
                schedule.end()

    def release(self) -> None:
        """The avatar may be trained by something else from now on."""
        self._fit.end()

    def _after_training(self) -> None:
        self.release()
        history = self._rounds.history
        history.finished = self._schedule.finished
        history.save()
        if not self._in_viewer:
            from edit3dgs_ns.edit_training.versions import RunHistory

            RunHistory(history.path.parent).keep_current()
        images = sum(len(b["views"]) for b in history.batches)
        CONSOLE.log(f"{len(history.batches)} rounds, {images} edited images: {history.path}", highlight=False)
