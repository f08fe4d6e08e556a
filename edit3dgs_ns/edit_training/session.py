"""One edit on an avatar that is loaded already, step by step: what `ns-train edit3dgs` does, for a viewer that shows it meanwhile.

```
session = EditSession(...)
while not session.finished:
    session.advance()       # one round of edits, or one training step
version = session.keep()    # or session.abandon()
```

Rounds take seconds to minutes and only look at the avatar: the viewer goes on drawing. Training steps hold the lock.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.pipelines.base_pipeline import VanillaPipeline
from nerfstudio.utils import writer

from edit3dgs_ns.edit_training.job import EditJob
from edit3dgs_ns.edit_training.optimizers import edit_optimizers
from edit3dgs_ns.edit_training.originals import renders_of
from edit3dgs_ns.edit_training.pipeline import EditPipeline, EditPipelineConfig
from edit3dgs_ns.edit_training.versions import RunHistory, Version
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.splats.checkpoints import model_state, read_checkpoint
from edit3dgs_ns.training.datamanager import AvatarDatamanager
from edit3dgs_ns.training.frozen_copy import frozen_avatar
from edit3dgs_ns.training.model import RiggedSplatfactoModel


class EditSession:
    """One edit of a run's avatar.

    Args:
        pipeline: the run's, with the avatar that is shown.
        job: the edit.
        config: its options (see `options_of`).
        history: the run's, to which the edited avatar is added.
        editor: the diffusion model.
        lock: held while the avatar changes.
    """

    def __init__(
        self,
        pipeline: VanillaPipeline,
        job: EditJob,
        config: EditPipelineConfig,
        history: RunHistory,
        editor: Any,
        lock: AbstractContextManager[Any],
    ):
        self._pipeline, self._job, self._history, self._lock = pipeline, job, history, lock
        self._parent = history.keep_current()
        model, datamanager = pipeline.model, pipeline.datamanager
        assert isinstance(model, RiggedSplatfactoModel) and isinstance(datamanager, AvatarDatamanager)
        self._datamanager = datamanager
        self.before = frozen_avatar(model)
        """The avatar that is edited, as it was."""
        datamanager.use_originals(renders_of(self.before, datamanager) if history.is_edited() else None)
        self._edit = EditPipeline.around(config, datamanager, model, editor)
        self._optimizers = Optimizers(edit_optimizers(), self._edit.get_param_groups())
        self.folder = _working_folder(history, self._parent.number)
        """Where the rounds leave their pictures and records."""
        self._callbacks = self._edit.get_training_callbacks(self._attributes(config))
        self.step = 0
        """Training steps done."""

    @property
    def total_steps(self) -> int:
        """Training steps in all, as far as it is known: edits may converge early."""
        return self._edit.total_steps

    @property
    def rounds_done(self) -> int:
        """Rounds of edits done."""
        return int(self._edit.schedule.round)

    @property
    def rounds(self) -> int:
        """Rounds of edits in all."""
        return int(self._edit.schedule.due_rounds)

    @property
    def finished(self) -> bool:
        """All steps are done."""
        return self.step >= self.total_steps

    def advance(self) -> None:
        """A round of edits if one is due, and a training step."""
        before, after = (
            TrainingCallbackLocation.BEFORE_TRAIN_ITERATION,
            TrainingCallbackLocation.AFTER_TRAIN_ITERATION,
        )
        for callback in self._callbacks:
            callback.run_callback_at_location(self.step, location=before)
        if writer.EVENT_STORAGE:
            writer.write_out_storage()  # nobody else empties it in ns-viewer
        with self._lock:
            self._edit.train()
            self._train_step()
            for callback in self._callbacks:
                callback.run_callback_at_location(self.step, location=after)
            self._edit.eval()
        self.step += 1

    def keep(self) -> Version:
        """The edited avatar becomes a version of the run, and the one that it shows."""
        step = self._parent.step + self.step
        path = self.folder / f"step-{step:09d}.ckpt"
        with self._lock:
            state = self._pipeline.state_dict()
            state.pop("_extra_state", None)  # of the run's own training, which cannot go on from here
            content = {"step": step, "pipeline": state, "optimizers": {}, "schedulers": {}, "scalers": {}}
            with written_beside(path) as partial:
                torch.save(content, partial)
        self._datamanager.use_originals(None)
        for callback in self._callbacks:
            callback.run_callback_at_location(self.step, location=TrainingCallbackLocation.AFTER_TRAIN)
        version = self._history.add(path, self._job.prompt, self._parent.number, self._job.options())
        path.unlink()
        return version

    def abandon(self) -> None:
        """The avatar is as it was, bit for bit. What was edited stays on disk: the same edit again takes it from there."""
        self._edit.release()
        show_version(self._pipeline, self._history, self._parent.number, self._lock)
        self._datamanager.use_originals(None)

    def _train_step(self) -> None:
        self._optimizers.zero_grad_all()
        _, losses, _ = self._edit.get_train_loss_dict(step=self.step)
        functools.reduce(torch.add, losses.values()).backward()  # type: ignore[no-untyped-call]
        self._optimizers.optimizer_step_all()
        self._optimizers.scheduler_step_all(self.step)

    def _attributes(self, config: EditPipelineConfig) -> TrainingCallbackAttributes:
        """What `EditPipeline` asks of a trainer."""
        settings = SimpleNamespace(
            load_dir=None, load_checkpoint=None, optimizers=edit_optimizers(), max_num_iterations=1 << 40
        )
        trainer: Any = SimpleNamespace(
            base_dir=self.folder,
            config=settings,
            optimizers=self._optimizers,
            save_checkpoint=lambda step: None,
            stop_training=False,
            train_lock=None,
            _start_step=0,
        )
        return TrainingCallbackAttributes(
            optimizers=self._optimizers,
            grad_scaler=None,  # type: ignore[arg-type]
            pipeline=self._edit,
            trainer=trainer,
        )


def show_version(
    pipeline: VanillaPipeline, history: RunHistory, number: int, lock: AbstractContextManager[Any]
) -> None:
    """Load a version of a run into the avatar that is shown."""
    path = history.checkpoint(number)
    state = model_state(read_checkpoint(path, "the history's"))
    model = pipeline.model
    assert isinstance(model, RiggedSplatfactoModel)
    with lock:
        model.load_state_dict(state)


def version_avatar(pipeline: VanillaPipeline, history: RunHistory, number: int) -> RiggedSplatfactoModel:
    """An avatar of its own that shows a version of the run."""
    model = pipeline.model
    assert isinstance(model, RiggedSplatfactoModel)
    return frozen_avatar(model, model_state(read_checkpoint(history.checkpoint(number), "the history's")))


def _working_folder(history: RunHistory, parent: int) -> Path:
    # By what is edited: the same edit of the same avatar, begun again, finds its finished views there.
    folder = history.folder / f"edits_of_{parent:04d}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
