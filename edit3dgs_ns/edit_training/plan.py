"""Which step of a run of `edit3dgs` does what: base training, rounds of edits with steps between them, final steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

_FINAL_RATE = 0.1
"""Learning rates fall to this part of themselves in the final steps."""


@dataclass(frozen=True)
class RunPlan:
    """Everything about a step follows from its number and these values, so that a run that was stopped goes on."""

    base_steps: int
    """Steps before the first edit."""
    rounds: int
    """Rounds of edits."""
    edit_every: int
    """Steps from one edit to the next."""
    final_steps: int
    """Steps after the last edit's own, with falling learning rates."""
    delay: int = 0
    """Steps by which the rounds not yet begun, and all steps after them, come later: the final steps that a run had done before
    it was given more rounds."""
    rounds_at_once: int = 1
    """Rounds that are edited together, before the steps of all of them."""

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.base_steps + self.rounds * self.edit_every + self.final_steps + self.delay

    def first_step_of(self, number: int) -> int:
        """The step before which round `number` (0, 1, ...) is edited, if it has not begun."""
        return self.base_steps + self._first_of_group(number) * self.edit_every + self.delay

    def edited_with(self, number: int) -> range:
        """The rounds from `number` on that are edited together with it."""
        return range(number, min(self._first_of_group(number) + self.rounds_at_once, self.rounds))

    def _first_of_group(self, number: int) -> int:
        return number - number % self.rounds_at_once

    def begins_round(self, step: int, number: int) -> bool:
        """Whether round `number` (0, 1, ...) is edited before `step`."""
        return number < self.rounds and step == self.first_step_of(number)

    def learning_rate_factor(self, step: int) -> float:
        """Of the configured learning rates, while edits are fitted."""
        begin = self.total_steps - self.final_steps
        if step < begin or self.final_steps < 1:
            return 1.0
        return math.exp(math.log(_FINAL_RATE) * (step - begin) / self.final_steps)
