"""The loop of edits: rounds of the diffusion model, and what training does differently between them.

`ns-train edit3dgs` and the viewer both drive it; training steps are their own:

```
edit = prepare_edit(config, datamanager, model, load_editor)
loop = EditLoop(edit, optimizers, folder)
step = 0
while not loop.finished_at(step):
    loop.before_step(step)      # sets the learning rates; edits a round if one is due
    ...                         # a training step
    step += 1
loop.finish()                   # or loop.release(), if the edit is given up
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from edit3dgs_ns.edit_training.cost import actual_cost
from edit3dgs_ns.edit_training.expression.follower import ExpressionFollower, put_back
from edit3dgs_ns.edit_training.growth.grower import Grower
from edit3dgs_ns.edit_training.history import HISTORY_FILE, History
from edit3dgs_ns.edit_training.keep_decision import KeepDecision
from edit3dgs_ns.edit_training.plan import RunPlan
from edit3dgs_ns.edit_training.prepare import PreparedEdit
from edit3dgs_ns.edit_training.requests import RequestMaker
from edit3dgs_ns.edit_training.rounds import EditRounds
from edit3dgs_ns.editing.store import EditStore, settings_hash


class EditLoop:
    """One edit of an avatar, step by step.

    Args:
        edit: what is done.
        optimizers: train the model; their configured learning rates are those of the edits.
        folder: gets the edits and the record of the rounds.
        resumed: folder of a run with the same settings, whose edits and record are taken over.
        before_round: called with the step before each round; saves a checkpoint.
        while_editing: entered while a round only looks at the avatar.
        while_changing: entered while Gaussians are added and removed.
    """

    def __init__(
        self,
        edit: PreparedEdit,
        optimizers: Optimizers,
        folder: Path,
        *,
        resumed: Path | None = None,
        before_round: Callable[[int], None] = lambda step: None,
        while_editing: Callable[[], AbstractContextManager[None]] = nullcontext,
        while_changing: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ):
        self.edit, self._optimizers = edit, optimizers.optimizers
        self._before_round, self._while_editing, self._while_changing = (
            before_round,
            while_editing,
            while_changing,
        )
        edit.fit.set_rates({name: optimizers.config[name]["optimizer"].lr for name in self._optimizers})
        folder.mkdir(parents=True, exist_ok=True)
        config = edit.config
        store = _open_store(folder, resumed, edit.settings)
        self.rounds = EditRounds(
            edit.datamanager,
            RequestMaker(edit.datamanager, edit.model, config.prompt, config.editor, edit.keep, edit.maps),
            edit.editor,
            store,
            _open_history(folder, resumed, edit),
            rounds=config.rounds,
            anchors=config.anchors,
            train_on=config.train_on,
            judge=config.judge,
            retries=config.retries,
            decision=KeepDecision(edit.keep, store),
        )
        self.expression = ExpressionFollower(config.edit_expression, edit.datamanager, edit.schedule)
        self.grower = Grower(
            edit.model,
            edit.datamanager,
            config.growth_budget,
            edit.fit.held_faces,
            folder,
            resumed,
            keeps_unedited=not self.expression.decided,
        )

    @property
    def plan(self) -> RunPlan:
        """Which step does what, as far as it is known: the rounds may end early."""
        return self.edit.plan

    def finished_at(self, step: int) -> bool:
        """Whether all steps before `step` were all steps of the run."""
        return step >= self.plan.total_steps

    def resume(self, state: Mapping[str, Any], start_step: int) -> None:
        """Continues at `start_step` with what `loop_state` gave.

        Edits of the rounds before come from the store, and are made again only if they are gone. A run that has begun its final
        steps and is given more rounds edits the next one at once, and each of the others `edit_every` steps after the one before.
        """
        schedule = self.edit.schedule
        schedule.load_state_dict(state["schedule"])
        self.rounds.history.converged_after = schedule.ended_after
        schedule.round = min(schedule.round, schedule.due_rounds)
        self.edit.delay = int(state.get("delay", 0))  # checkpoints of older versions have none
        self.edit.looked_at = self.grower.looked_at = int(state.get("looked_at", 0))
        self.edit.form_changed = bool(state.get("form_changed", False))
        # Older versions knew no offsets: their runs go on as they began.
        self.edit.expression_decided = bool(state.get("expression_decided", True))
        self.expression.decided = self.expression.decided or self.edit.expression_decided
        if not schedule.finished:
            self.edit.delay += max(start_step - self.plan.first_step_of(schedule.round), 0)
        for number in range(schedule.round):
            self.rounds.run([schedule.batch(number)], start_step)

    def before_step(self, step: int) -> None:
        """Sets the learning rates, and edits a round if one is due. Lets the model go if that fails."""
        try:
            self._before_step(step)
        except BaseException:
            self.release()
            raise

    def finish(self) -> None:
        """Lets the model go, and records whether all rounds were done."""
        self.release()
        self.rounds.history.finished = self.edit.schedule.finished
        self.rounds.history.save()
        cost = actual_cost(self.rounds.history.batches)
        if cost:
            CONSOLE.log(cost, highlight=False)

    def release(self) -> None:
        """Lets the model go: whatever trains it next has its own loss, and may move all of it. Again is harmless."""
        self.edit.fit.end()

    def _before_step(self, step: int) -> None:
        edit, schedule, plan = self.edit, self.edit.schedule, self.plan
        edit.fit.set_learning_rates(self._optimizers, step, plan)
        if step < plan.base_steps:
            return
        edit.fit.begin(self._optimizers)
        if self.grower.unedited is None:
            self.grower.begin()
            if edit.expression_decided:
                self.grower.offset_changed()  # its file is from before
        if edit.form_changed and not edit.model.follows_form:
            edit.fit.form_changed(self._optimizers)
        if schedule.finished or not plan.begins_round(step, schedule.round):
            return
        self._before_round(step)
        due = plan.edited_with(schedule.round)
        with self._while_editing():
            self.rounds.run([schedule.batch(number) for number in due], step)
        for _ in due:
            schedule.advance()
        if self.rounds.converged(schedule.round, edit.config.stop_when_converged):
            schedule.end()
        self._follow_expression(due[-1])
        self._follow_form(due[-1])

    def _follow_expression(self, number: int) -> None:
        """Makes what the views edited so far change in expression an offset of the motion; the fit begins anew under it."""
        edit, unedited = self.edit, self.grower.unedited
        if unedited is None or not self.expression.is_due(edit.schedule.finished):
            return
        found = self.expression.look(unedited)
        edit.expression_decided = True
        if found is None:
            return
        if found.accepted:
            with self._while_changing():
                put_back(edit.model, unedited, self._optimizers)
                edit.model.head.set_offset(found.offset)
                edit.fit.gaussians_replaced(self._optimizers)
                self.grower.offset_changed()
        self.rounds.history.note(number, {"expression": found.record()})

    def _follow_form(self, number: int) -> None:
        """Adds and removes Gaussians as the views edited so far ask for, once it is known what of it is expression."""
        edit = self.edit
        if not self.expression.decided:
            return
        with self._while_changing():
            change = self.grower.look(self._optimizers, last=edit.schedule.finished)
            edit.looked_at = self.grower.looked_at
            if change is None:
                return
            edit.fit.form_changed(self._optimizers)
        edit.form_changed = True
        self.rounds.history.note(number, {"growth": change.record()})


def loop_state(edit: PreparedEdit) -> dict[str, Any]:
    """What a checkpoint says of an edit, as plain values."""
    return {
        "settings": edit.settings,
        "schedule": edit.schedule.state_dict(),
        "delay": edit.delay,
        "looked_at": edit.looked_at,
        "form_changed": edit.form_changed,
        "expression_decided": edit.expression_decided,
    }


def _open_history(folder: Path, resumed: Path | None, edit: PreparedEdit) -> History:
    config = edit.config
    history = History(
        folder / HISTORY_FILE,
        config.prompt,
        config.rounds,
        config.steps_before_edits,
        edit.editor.settings,
        edit.fit.loss.name,
    )
    if resumed is not None:
        history.read_batches(resumed / HISTORY_FILE)
    history.save()
    return history


def _open_store(folder: Path, resumed: Path | None, settings: Mapping[str, Any]) -> EditStore:
    """The store in this folder, with all edits of the run that is resumed."""
    store = EditStore.for_settings(folder / "edits", settings)
    old = None if resumed is None else resumed / "edits" / settings_hash(settings)
    if old is not None and old.is_dir() and old.resolve() != store.folder.resolve():
        taken = store.copy_from(EditStore(old, settings, is_own=False))
        CONSOLE.log(escape(f"Took over {taken} finished edits from {old}"))
    return store
