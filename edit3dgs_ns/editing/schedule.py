"""Which views are edited next, and with how much noise.

A round edits one batch: several cameras of one timestep, or of several. Rounds follow each other in turns:
    within a turn every timestep comes once. What a round edits depends on the seed and the round's number
    alone, so that the whole state is that number.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Order = Literal["random", "sequential"]


@dataclass(frozen=True)
class Batch:
    """What one round edits."""

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
    """Deals out batches, round by round.

    Args:
        views_by_timestep: training images of every timestep.
        rounds: rounds in all.
        views_per_edit: cameras per timestep of a round; all of a timestep's if it has fewer.
        timesteps_per_edit: timesteps of a round.
        order: `random` shuffles the timesteps anew in every turn; `sequential` goes along the motion. When
            the rounds do not reach every timestep, `sequential` spreads them evenly.
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
    ```
    """

    def __init__(
        self,
        views_by_timestep: Mapping[int, Sequence[int]],
        *,
        rounds: int,
        views_per_edit: int,
        timesteps_per_edit: int = 1,
        order: Order = "random",
        noise_first: float = 0.98,
        noise_last: float = 0.3,
        seed: int = 0,
        new_noise: bool = False,
    ):
        if min(rounds, views_per_edit, timesteps_per_edit) < 1:
            raise ValueError(
                f"rounds {rounds}, views_per_edit {views_per_edit}, timesteps_per_edit {timesteps_per_edit}: expected at "
                "least 1 of each."
            )
        if not 0 < noise_last <= noise_first <= 1:
            raise ValueError(
                f"noise_first {noise_first} and noise_last {noise_last}: expected 0 < last <= first <= 1."
            )
        self._views = {t: tuple(sorted(views)) for t, views in sorted(views_by_timestep.items()) if views}
        if not self._views:
            raise ValueError("There is no training view to edit.")
        self.rounds, self.views_per_edit, self.order = rounds, views_per_edit, order
        self.timesteps_per_edit = min(timesteps_per_edit, len(self._views))
        self.noise_first, self.noise_last = noise_first, noise_last
        self.seed, self.new_noise = seed, new_noise
        self.round = 0

    @property
    def finished(self) -> bool:
        """All rounds are done."""
        return self.round >= self.rounds

    @property
    def current(self) -> Batch:
        """The round that is due."""
        if self.finished:
            raise IndexError(f"All {self.rounds} rounds are done.")
        return self.batch(self.round)

    def advance(self) -> None:
        """The current round is done."""
        self.round += 1

    def batch(self, number: int) -> Batch:
        """What round `number` (0, 1, ...) edits."""
        if not 0 <= number < self.rounds:
            raise IndexError(f"Round {number}: expected 0 to {self.rounds - 1}.")
        share = number / max(self.rounds - 1, 1)
        timestep_of = {}
        for slot in range(number * self.timesteps_per_edit, (number + 1) * self.timesteps_per_edit):
            timestep, visit = self._timestep(slot)
            timestep_of.update(dict.fromkeys(self._pick_views(timestep, visit), timestep))
        views = tuple(sorted(timestep_of))
        return Batch(
            round=number,
            views=views,
            timesteps=tuple(timestep_of[view] for view in views),
            noise=self.noise_first + share * (self.noise_last - self.noise_first),
            seed=self.seed + (number if self.new_noise else 0),
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain values: the round that is due, and what its meaning depends on."""
        return {
            "round": self.round,
            "seed": self.seed,
            "order": self.order,
            "views_per_edit": self.views_per_edit,
            "timesteps_per_edit": self.timesteps_per_edit,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another schedule with the same options stopped; more rounds than it had are fine.

        Raises:
            ValueError: the options differ, so that its rounds were other rounds.
        """
        for name in ("seed", "order", "views_per_edit", "timesteps_per_edit"):
            if state.get(name) != getattr(self, name):
                raise ValueError(
                    f"The run to resume was started with {name} {state.get(name)!r}, this one with "
                    f"{getattr(self, name)!r}. Use the same value, or start a new run."
                )
        self.round = int(state["round"])

    def _timestep(self, slot: int) -> tuple[int, int]:
        """The timestep that is edited as the run's `slot`-th, and how many times it had its turn before."""
        timesteps = list(self._views)
        slots = self.rounds * self.timesteps_per_edit
        if self.order == "sequential" and slots < len(timesteps):
            return timesteps[slot * len(timesteps) // slots], 0
        turn, place = divmod(slot, len(timesteps))
        if self.order == "random":
            random.Random(f"{self.seed}/turn/{turn}").shuffle(timesteps)
        return timesteps[place], turn

    def _pick_views(self, timestep: int, visit: int) -> tuple[int, ...]:
        """Consecutive pieces of one shuffled ring: every view has its turn before any comes again."""
        ring = list(self._views[timestep])
        random.Random(f"{self.seed}/views/{timestep}").shuffle(ring)
        count = min(self.views_per_edit, len(ring))
        return tuple(sorted(ring[(visit * count + place) % len(ring)] for place in range(count)))
