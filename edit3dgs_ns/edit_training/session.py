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
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.pipelines.base_pipeline import VanillaPipeline
from nerfstudio.utils import writer

from edit3dgs_ns.edit_training.job import EditJob
from edit3dgs_ns.edit_training.judged_edits import summary
from edit3dgs_ns.edit_training.loop import EditLoop
from edit3dgs_ns.edit_training.optimizers import edit_optimizers
from edit3dgs_ns.edit_training.options import EditOptions
from edit3dgs_ns.edit_training.originals import renders_of
from edit3dgs_ns.edit_training.prepare import limit_to_base_training, prepare_edit
from edit3dgs_ns.edit_training.versions import RunHistory, Version
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.splats.checkpoints import model_state, read_checkpoint, write_checkpoint
from edit3dgs_ns.training.datamanager import AvatarDatamanager
from edit3dgs_ns.training.frozen_copy import frozen_avatar
from edit3dgs_ns.training.model import RiggedSplatfactoModel
from edit3dgs_ns.training.one_camera import fill_unseen_of


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
        config: EditOptions,
        history: RunHistory,
        editor: Any,
        lock: AbstractContextManager[Any],
    ):
        self._pipeline, self._job, self._history, self._lock = pipeline, job, history, lock
        self._parent = history.keep_current()
        model, datamanager = pipeline.model, pipeline.datamanager
        assert isinstance(model, RiggedSplatfactoModel) and isinstance(datamanager, AvatarDatamanager)
        self._model, self._datamanager, self._own_config = model, datamanager, model.config
        self.before = frozen_avatar(model)
        """The avatar that is edited, as it was."""
        datamanager.use_originals(renders_of(self.before, datamanager) if history.is_edited() else None)
        self.folder = _working_folder(history, self._parent.number)
        """Where the rounds leave their images and records."""
        self.step = 0
        """Training steps done."""
        limit_to_base_training(config)
        model.train_by(config.model)
        try:
            self._edit = prepare_edit(config, datamanager, model, lambda: editor)
            self._optimizers = Optimizers(edit_optimizers(), model.get_param_groups())
            self._loop = EditLoop(
                self._edit, self._optimizers, self.folder, while_changing=lambda: self._lock
            )
        except BaseException:
            model.train_by(self._own_config)
            raise

    @property
    def total_steps(self) -> int:
        """Training steps in all, as far as it is known: edits may converge early."""
        return self._loop.plan.total_steps

    @property
    def rounds_done(self) -> int:
        """Rounds of edits done."""
        return int(self._edit.schedule.round)

    @property
    def rounds(self) -> int:
        """Rounds of edits in all."""
        return int(self._edit.schedule.due_rounds)

    @property
    def judged(self) -> str:
        """What became of views that were not good at once, in a few words; empty if all were."""
        return summary(self._loop.rounds.history.batches)

    @property
    def finished(self) -> bool:
        """All steps are done."""
        return self._loop.finished_at(self.step)

    @property
    def held_faces(self) -> Bool[np.ndarray, " faces"] | None:
        """Faces of the rig whose Gaussians stay as they are; None for none."""
        return self._edit.fit.held_faces

    def advance(self) -> None:
        """A round of edits if one is due, and a training step. After an exception the session can only be abandoned."""
        try:
            self._loop.before_step(self.step)
            if writer.EVENT_STORAGE:
                writer.write_out_storage()  # nobody else empties it in ns-viewer
            with self._lock:
                self._train_step()
        except BaseException:
            self._let_go()
            raise
        self.step += 1

    def keep(self) -> Version:
        """The edited avatar becomes a version of the run, and the one that it shows."""
        self._loop.finish()
        self._let_go()
        step = self._parent.step + self.step
        path = self.folder / f"step-{step:09d}.ckpt"
        with self._lock:
            fill_unseen_of(self._model, self._datamanager, self.held_faces)
            state = self._pipeline.state_dict()
            state.pop("_extra_state", None)  # of the run's own training, which cannot go on from here
            content = {"step": step, "pipeline": state, "optimizers": {}, "schedulers": {}, "scalers": {}}
            with written_beside(path) as partial:
                write_checkpoint(content, partial)
        self._datamanager.use_originals(None)
        expression = self._loop.rounds.history.expression
        options = self._job.options() | ({} if expression is None else {"expression": expression})
        version = self._history.add(path, self._job.prompt, self._parent.number, options)
        path.unlink()
        return version

    def abandon(self) -> None:
        """The avatar is as it was, bit for bit. What was edited stays on disk: the same edit again takes it from there."""
        self._let_go()
        show_version(self._pipeline, self._history, self._parent.number, self._lock)
        self._datamanager.use_originals(None)

    def _let_go(self) -> None:
        """The model is trained as its own run says again; twice is harmless."""
        self._loop.release()
        with self._lock:
            if self._model.config is not self._own_config:
                self._model.train_by(self._own_config)

    def _train_step(self) -> None:
        """As Nerfstudio's trainer does it; evaluation mode before and after, for whoever draws."""
        model, step = self._model, self.step
        model.train()
        try:
            model.step_cb(self._optimizers, step)
            self._optimizers.zero_grad_all()
            cameras, batch = self._datamanager.next_train(step)
            losses = model.get_loss_dict(model(cameras), batch)
            functools.reduce(torch.add, losses.values()).backward()  # type: ignore[no-untyped-call]
            self._optimizers.optimizer_step_all()
            self._optimizers.scheduler_step_all(step)
            model.step_post_backward(step)
        finally:
            model.eval()


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
