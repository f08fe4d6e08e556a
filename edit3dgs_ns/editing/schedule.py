"""Schedule of edits: views and noise bound of every round.

A round edits one batch: several cameras of one timestep, or of several. Rounds follow each other in turns:
    within a turn every timestep comes once. What a round edits depends on the options and the round's number
    alone, so that the whole state is that number, and where the rounds ended if they ended early.

What a schedule costs is its rounds: `rounds * timesteps_per_edit` turns of a timestep are dealt out, however long the
    capture is. `farthest-first` makes the most of few: its timesteps cover all expressions of the capture.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.editing.farthest_point_sampling import farthest_point_sampling
from edit3dgs_ns.editing.noise_levels import falling_noise, resumed_noise
from edit3dgs_ns.errors import UserError

Order = Literal["random", "sequential", "farthest-first"]
_MUST_AGREE = (
    "seed", "order", "views_per_edit", "timesteps_per_edit", "timesteps", "noise_first", "noise_last", "new_noise",
)  # fmt: skip
"""Options that determine what each round edits."""


@dataclass(frozen=True)
class Batch:
    """Views, noise bound and seed of one round."""

    round: int
    views: tuple[int, ...]
    """Indices of training images, ascending."""
    timesteps: tuple[int, ...]
    """Timestep of each view."""
    noise: float
    """Upper noise bound as a fraction of the diffusion schedule."""
    seed: int
    """Seed of the diffusion's noise."""


class EditSchedule:
    """Assigns a batch of views and a noise bound to every round.

    Args:
        views_by_timestep: training images of every timestep.
        rounds: rounds in all.
        views_per_edit: cameras per timestep of a round; all of a timestep's if it has fewer.
        timesteps_per_edit: timesteps of a round.
        timesteps: how many different timesteps are edited at all; 0 for as many as the rounds reach. These are
            visited again and again.
        order: `random` shuffles the timesteps anew in every turn; `sequential` goes along the motion, in even steps
            when the rounds do not reach every timestep; `farthest-first` takes next whose expression is the
            farthest from all before, so that however few are edited, they cover the others.
        expressions: for `farthest-first`, the place of every timestep of the motion in expression space (row t is
            timestep t); distances say how different two are.
        noise_first: noise of the first round, a fraction of the schedule (Instruct-NeRF2NeRF starts at 0.98).
        noise_last: noise of the last round; between them it falls linearly.
        seed: seed of the order and of the diffusion's noise.
        new_noise: a noise of its own for every round; else all rounds share one, so that what the noise
            decides agrees between them.

    ```
    schedule = EditSchedule(...)
    schedule.load_state_dict(state)                 # to go on
    while not schedule.finished:
        edit(schedule.current)
        schedule.advance()
        if converged:
            schedule.end()
    ```
    """

    def __init__(
        self,
        views_by_timestep: Mapping[int, Sequence[int]],
        *,
        rounds: int,
        views_per_edit: int,
        timesteps_per_edit: int = 1,
        timesteps: int = 0,
        order: Order = "random",
        expressions: Float[np.ndarray, "timesteps coordinates"] | None = None,
        noise_first: float = 0.98,
        noise_last: float = 0.3,
        seed: int = 0,
        new_noise: bool = False,
    ):
        if min(rounds, views_per_edit, timesteps_per_edit) < 1:
            raise UserError(
                f"rounds {rounds}, views_per_edit {views_per_edit}, timesteps_per_edit {timesteps_per_edit}: expected at "
                "least 1 of each."
            )
        if timesteps < 0:
            raise UserError(f"timesteps {timesteps}: expected at least 0 (for as many as the rounds reach).")
        if not 0 < noise_last <= noise_first <= 1:
            raise UserError(
                f"noise_first {noise_first} and noise_last {noise_last}: expected 0 < last <= first <= 1."
            )
        self._views = {t: tuple(sorted(views)) for t, views in sorted(views_by_timestep.items()) if views}
        if not self._views:
            raise UserError("There is no training view to edit.")
        self.rounds, self.views_per_edit, self.order, self.timesteps = (
            rounds,
            views_per_edit,
            order,
            timesteps,
        )
        self.timesteps_per_edit = min(timesteps_per_edit, timesteps or len(self._views), len(self._views))
        self.noise_first, self.noise_last = noise_first, noise_last
        self._noise = falling_noise(noise_first, noise_last, rounds)
        self.seed, self.new_noise = seed, new_noise
        self.round = 0
        self.ended_after: int | None = None
        """Rounds after which the run was ended early; None if it was not."""
        self._chosen = self._choose(expressions)
        self._turns: list[list[int]] = []

    @property
    def due_rounds(self) -> int:
        """Rounds in all, as far as it is known: `rounds`, or fewer if they ended early."""
        return self.rounds if self.ended_after is None else self.ended_after

    @property
    def finished(self) -> bool:
        """Whether all rounds are done."""
        return self.round >= self.due_rounds

    def end(self) -> None:
        """No more rounds after those that are done."""
        self.ended_after = self.round

    @property
    def current(self) -> Batch:
        """The round that is due."""
        if self.finished:
            raise IndexError(f"All {self.due_rounds} rounds are done.")
        return self.batch(self.round)

    def advance(self) -> None:
        """The current round is done."""
        self.round += 1

    def batch(self, number: int) -> Batch:
        """Batch of round `number` (0, 1, ...)."""
        if not 0 <= number < self.rounds:
            raise IndexError(f"Round {number}: expected 0 to {self.rounds - 1}.")
        timestep_of = {}
        for slot in range(number * self.timesteps_per_edit, (number + 1) * self.timesteps_per_edit):
            timestep, visit = self._timestep(slot)
            timestep_of.update(dict.fromkeys(self._pick_views(timestep, visit), timestep))
        views = tuple(sorted(timestep_of))
        return Batch(
            round=number,
            views=views,
            timesteps=tuple(timestep_of[view] for view in views),
            noise=self._noise[number],
            seed=self.seed + (number if self.new_noise else 0),
        )

    def views(self) -> set[int]:
        """All views that the rounds edit, if none ends them early."""
        return {view for number in range(self.rounds) for view in self.batch(number).views}

    def settings(self) -> dict[str, Any]:
        """Plain values: what the meaning of a round's number depends on."""
        return {name: getattr(self, name) for name in _MUST_AGREE}

    def state_dict(self) -> dict[str, Any]:
        """Plain values: the round that is due, and what its meaning depends on."""
        return {
            **self.settings(),
            "rounds": self.rounds,
            "round": self.round,
            "ended_after": self.ended_after,
            "noise_levels": list(self._noise),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another schedule with the same options stopped.

        Its number of rounds may be another, unless that decides which timesteps are edited. The rounds that are done keep the
        noise they had, and the others go on falling from there (see `resumed_noise`).

        Raises:
            ValueError: the options differ, so that its rounds were other rounds.
        """
        for name in (*_MUST_AGREE, *(("rounds",) if self._rounds_decide(state) else ())):
            if state.get(name) != getattr(self, name):
                raise UserError(
                    f"The run to resume was started with {name} {state.get(name)!r}, this one with "
                    f"{getattr(self, name)!r}. Use the same value, or start a new run."
                )
        self.round, self.ended_after = int(state["round"]), state.get("ended_after")
        former = int(state.get("rounds", self.rounds))
        # Checkpoints of older versions do not list the levels.
        levels = state.get("noise_levels") or falling_noise(self.noise_first, self.noise_last, former)
        if self.rounds == former:
            self._noise = list(levels)
        else:
            self._noise = resumed_noise(levels, self.round, self.rounds, self.noise_last)

    def _choose(self, expressions: Float[np.ndarray, "timesteps coordinates"] | None) -> list[int]:
        """The timesteps that are edited, in the order of a turn (`random` shuffles them for each)."""
        known = list(self._views)
        slots = self.rounds * self.timesteps_per_edit
        count = min(self.timesteps or slots, slots, len(known))
        if self.order == "farthest-first":
            if expressions is None:
                raise UserError("The order farthest-first needs the expressions of all timesteps.")
            return [known[place] for place in farthest_point_sampling(expressions[known], count)]
        if self.order == "sequential":
            return [known[place * len(known) // count] for place in range(count)]
        random.Random(f"{self.seed}/timesteps").shuffle(known)
        return sorted(known[: self.timesteps or len(known)])

    def _rounds_decide(self, state: Mapping[str, Any]) -> bool:
        """Even steps along the motion are longer when there are fewer of them."""
        slots = min(self.rounds, state.get("rounds", self.rounds)) * self.timesteps_per_edit
        return self.order == "sequential" and slots < min(
            self.timesteps or len(self._views), len(self._views)
        )

    def _timestep(self, slot: int) -> tuple[int, int]:
        """The timestep that is edited as the run's `slot`-th, and how many times it had its turn before."""
        turn, place = divmod(slot, len(self._chosen))
        return self._turn(turn)[place], turn

    def _turn(self, number: int) -> list[int]:
        """The order of the timesteps in a turn."""
        if self.order != "random":
            return self._chosen
        while len(self._turns) <= number:
            turn = len(self._turns)
            timesteps = list(self._chosen)
            random.Random(f"{self.seed}/turn/{turn}").shuffle(timesteps)
            # A batch that the last turn has begun is completed by timesteps that it does not hold yet.
            begun = turn * len(timesteps) % self.timesteps_per_edit
            held = set(self._turns[-1][-begun:]) if begun else set()
            missing = self.timesteps_per_edit - begun if begun else 0
            head = [timestep for timestep in timesteps if timestep not in held][:missing]
            self._turns.append(head + [timestep for timestep in timesteps if timestep not in head])
        return self._turns[number]

    def _pick_views(self, timestep: int, visit: int) -> tuple[int, ...]:
        """Consecutive pieces of one shuffled ring: every view has its turn before any comes again."""
        ring = list(self._views[timestep])
        random.Random(f"{self.seed}/views/{timestep}").shuffle(ring)
        count = min(self.views_per_edit, len(ring))
        return tuple(sorted(ring[(visit * count + place) % len(ring)] for place in range(count)))
