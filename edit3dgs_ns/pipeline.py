"""`edit3dgs`: train an avatar, or take a trained one, and edit it while fitting it to the edits.

The run, step by step: `base_steps` on the capture (none with `--pipeline.avatar`), then `rounds` times an
edit and `edit_every` steps, then `final_steps` with falling learning rates. Everything about a step follows
from its number, so that a run that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional, Type  # noqa: UP035  (tyro reads these at run time)

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE

from edit3dgs_ns.datamanager import AvatarDatamanager, AvatarDatamanagerConfig
from edit3dgs_ns.edit_options import EditorConfig, base_rates, check_options
from edit3dgs_ns.model import RiggedSplatfactoModel, RiggedSplatfactoModelConfig

_FINAL_RATE = 0.1
"""Learning rates fall to this part of themselves in the final steps."""


@dataclass
class EditPipelineConfig(VanillaPipelineConfig):
    """Edits an avatar with a sentence, given by --prompt."""

    _target: Type = field(default_factory=lambda: EditPipeline)  # noqa: UP006
    """target class to instantiate"""
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
    views_per_edit: int = 4
    """Cameras of each timestep in a batch."""
    timesteps_per_edit: int = 1
    """Timesteps in a batch. With more than one, its key views steer all of them (--pipeline.editor.correspondence rig)."""
    final_steps: int = 200
    """Steps after the last batch's own, with falling learning rates."""
    anchors: int = 0
    """Views of the first round that every later round edits along as key views, so that it follows their look. Each
    costs as much as any other view of a batch, and is trained on no second time."""
    timestep_order: Literal["random", "sequential"] = "random"
    """Which timestep is edited next."""
    noise_first: float = 0.98
    """How far the renders of the first round are noised before they are edited, as a fraction of the
    diffusion schedule."""
    noise_last: float = 0.3
    """The same for the last round."""
    new_noise: bool = False
    """Draw new noise in every round."""
    masks: Literal["rig"] = "rig"
    """Where the masks of --pipeline.editor.keep and --pipeline.editor.only come from: `rig`, the avatar itself."""
    train_on: Literal["edited", "mixed"] = "edited"
    """Once there are edits, train on edited images only, or on all images of the capture."""
    densify: bool = False
    """Let Gaussians split and be pruned while edits are fitted, as the model's options say."""
    edit_motion: bool = False
    """Go on training the expressions and poses while edits are fitted."""
    seed: int = 0
    """Seed of the order of the batches and of the diffusion's noise."""


class EditPipeline(VanillaPipeline):
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
        self._editor: Any = None
        self._resumed: dict[str, Any] | None = None
        self._rounds: Any = None
        self._keep_masks: Any = None
        self._schedule = self._make_schedule()
        self._rates: dict[str, float] = {}
        self._motion_trains = config.model.fine_tune_motion and not config.edit_motion
        if training:
            if config.avatar is not None:
                from edit3dgs_ns.avatar import load_avatar

                path = load_avatar(self._avatar_model, config.avatar)
                CONSOLE.log(f"Editing the avatar of {path}")
            from edit3dgs_ns.edit_masks import make_keep_masks

            self._keep_masks = make_keep_masks(config, self.datamanager, self._avatar_model)
            self._editor = self._load_editor()

    # -- the plan --------------------------------------------------------------------------------------------

    @property
    def base_steps(self) -> int:
        """Steps before the first edit."""
        return 0 if self.config.avatar is not None else self.config.base_steps

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.base_steps + self.config.rounds * self.config.edit_every + self.config.final_steps

    def rounds_begun_before(self, step: int) -> int:
        """How many rounds have begun before `step`."""
        local = step - self.base_steps
        return 0 if local <= 0 else min(-(-local // self.config.edit_every), self.config.rounds)

    def learning_rate_factor(self, step: int) -> float:
        """Of the configured learning rates, while edits are fitted."""
        begin = self.total_steps - self.config.final_steps
        if step < begin or self.config.final_steps < 1:
            return 1.0
        return math.exp(math.log(_FINAL_RATE) * (step - begin) / self.config.final_steps)

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

        def after(step: int) -> None:
            self._after_training()

        return [
            TrainingCallback([where.BEFORE_TRAIN_ITERATION], before),
            *callbacks,
            TrainingCallback([where.AFTER_TRAIN], after),
        ]

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load a checkpoint; a training run goes on only with what the same command has saved.

        Raises:
            ValueError: the checkpoint is of another method, or of an edit with other options.
        """
        if self._editor is not None:
            self._check_same_run(loaded_state.get("_extra_state"))
        super().load_pipeline(loaded_state, step)

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint says of the edit: plain values and a tensor."""
        return {
            "prompt": self.config.model.prompt,
            "base_steps": self.base_steps,
            "edit_every": self.config.edit_every,
            "schedule": self._schedule.state_dict(),
            "torch_rng": torch.get_rng_state(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Keep what the checkpoint says until training begins."""
        self._resumed = state

    # -- set-up ----------------------------------------------------------------------------------------------

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

    def _make_schedule(self) -> Any:
        from edit3dgs_ns.editing.schedule import EditSchedule

        config = self.config
        return EditSchedule(
            self.datamanager.indices_by_timestep(),
            rounds=config.rounds,
            views_per_edit=config.views_per_edit,
            timesteps_per_edit=config.timesteps_per_edit,
            order=config.timestep_order,
            noise_first=config.noise_first,
            noise_last=config.noise_last,
            seed=config.seed,
            new_noise=config.new_noise,
        )

    def _load_editor(self) -> Any:
        from edit3dgs_ns.editing.instruct_pix2pix import SharingOptions
        from edit3dgs_ns.editing.loading import load_editor

        options = self.config.editor
        editor = load_editor(
            options.model,
            device=self.device if options.device == "auto" else options.device,
            dtype=options.dtype,
            scheduler=options.scheduler,
            views_per_forward=options.views_per_forward,
            resolution=options.resolution,
            sharing=SharingOptions(
                options.correspondence, options.views_per_key, options.self_attention_below
            ),
            attention_slicing=options.attention_slicing,
            offload=options.offload,
        )
        warning = editor.unknown_instruction(self._prompt)
        if warning is not None:
            CONSOLE.print(f"[bold yellow]Warning:[/bold yellow] {warning}", highlight=False)
        return editor

    @property
    def _prompt(self) -> str:
        return (self.config.model.prompt or "").strip()

    def _start(self, trainer: Any) -> None:
        """Open the store, go on with a resumed run, and set the run's length."""
        from edit3dgs_ns.edit_requests import RequestMaker, RequestOptions
        from edit3dgs_ns.rounds import HISTORY_FILE, EditRounds, History

        run, resumed_run = trainer.base_dir, self._resumed_run(trainer)
        run.mkdir(parents=True, exist_ok=True)
        options = RequestOptions.of(self._prompt, self.config.editor)
        requests = RequestMaker(self.datamanager, self._avatar_model, options, self._keep_masks)
        history = History(
            run / HISTORY_FILE, self._prompt, self.config.rounds, self.base_steps, self._editor.settings
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
        self._rates = {name: o.param_groups[0]["lr"] for name, o in trainer.optimizers.optimizers.items()}
        self._rates |= {
            name: c["optimizer"].lr for name, c in trainer.config.optimizers.items() if name in self._rates
        }
        left = max(self.total_steps - trainer._start_step, 1)
        trainer.config.max_num_iterations = min(trainer.config.max_num_iterations, left)
        self._resume(trainer._start_step)

    def _resumed_run(self, trainer: Any) -> Path | None:
        config = trainer.config
        loaded = config.load_dir if config.load_dir is not None else config.load_checkpoint
        if loaded is None:
            return None
        return Path(loaded).parent.parent if Path(loaded).suffix == ".ckpt" else Path(loaded).parent

    def _check_same_run(self, saved: Any) -> None:
        if not isinstance(saved, dict):
            raise ValueError(
                "--load-dir: this is no checkpoint of `ns-train edit3dgs`, so there is no edit to go on with. To edit a "
                "trained avatar, give it as --pipeline.avatar instead of --load-dir."
            )
        own = self.get_extra_state()
        for name in ("prompt", "base_steps", "edit_every"):
            if saved.get(name) != own[name]:
                raise ValueError(
                    f"--load-dir: the run to resume has {name} {saved.get(name)!r}, this one {own[name]!r}. Resume with "
                    "the same command, or edit that run's avatar anew: --pipeline.avatar instead of --load-dir."
                )

    def _open_store(self, run: Path, resumed_run: Path | None) -> Any:
        """The store in this run's folder, with all edits of the run that is resumed."""
        from edit3dgs_ns.editing.store import EditStore, settings_hash

        names = "\n".join(path.name for path in self.datamanager.train_dataset.image_filenames)
        options = self.config.editor
        settings = {
            **self._editor.settings,
            **self._schedule.state_dict(),
            "prompt": self._prompt,
            "guidance_scale": options.guidance_scale,
            "image_guidance_scale": options.image_guidance_scale,
            "steps": options.steps,
            "shared_noise": options.shared_noise,
            "keep": self._keep_masks.settings(),
            "keep_strength": options.keep_strength,
            "keep_from": options.keep_from,
            "keep_until": options.keep_until,
            "new_noise": self.config.new_noise,
            "anchors": self.config.anchors,
            "images": hashlib.sha256(names.encode()).hexdigest()[:12],
        }
        del settings["round"]
        store = EditStore.for_settings(run / "edits", settings)
        old = None if resumed_run is None else resumed_run / "edits" / settings_hash(settings)
        if old is not None and old.is_dir() and old.resolve() != store.folder.resolve():
            taken = store.copy_from(EditStore(old, settings))
            CONSOLE.log(f"Took over {taken} finished edits from {old}")
        return store

    def _resume(self, start_step: int) -> None:
        """Continue the schedule; edits of the rounds before come from the store, and are made again only if
        they are gone."""
        state = self._resumed
        if state is None:
            return
        self._schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["torch_rng"].cpu().to(torch.uint8))
        begun = self.rounds_begun_before(start_step)
        for number in range(begun):
            self._rounds.run(self._schedule.batch(number), start_step)
        self._schedule.round = begun

    # -- training --------------------------------------------------------------------------------------------

    def _before_step(self, trainer: Any, step: int) -> None:
        if writer.is_initialized():
            writer.GLOBAL_BUFFER["max_iter"] = self.total_steps
        self._set_learning_rates(trainer.optimizers.optimizers, step)
        local = step - self.base_steps
        if local < 0 or self._schedule.finished:
            return
        if self._motion_trains:
            self._freeze_motion()
        if local == self._schedule.round * self.config.edit_every:
            # With this, a run that is killed while it edits goes on from here and not from the last
            # `steps_per_save`.
            trainer.save_checkpoint(max(step - 1, 0))
            self._rounds.run(self._schedule.current, step)
            self._schedule.advance()

    def _set_learning_rates(self, optimizers: Mapping[str, torch.optim.Optimizer], step: int) -> None:
        base = base_rates(self.base_steps) if step < self.base_steps else None
        for name, optimizer in optimizers.items():
            frozen = name.startswith("flame_") and base is None and not self.config.edit_motion
            rate = (
                base[name](step) if base is not None else self._rates[name] * self.learning_rate_factor(step)
            )
            for group in optimizer.param_groups:
                group["lr"] = 0.0 if frozen else rate

    def _freeze_motion(self) -> None:
        from edit3dgs_ns.avatar import freeze

        self._motion_trains = False
        freeze(list(self._avatar_model.head.pose.values()))

    def _after_training(self) -> None:
        history = self._rounds.history
        history.finished = self._schedule.finished
        history.save()
        images = sum(len(b["views"]) for b in history.batches)
        CONSOLE.log(f"{len(history.batches)} rounds, {images} edited images: {history.path}", highlight=False)
