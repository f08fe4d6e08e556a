"""Which training images each step gets.

In every epoch each image is used once. Images of a group (one timestep and one size: they can be rendered
together) are shuffled and cut into batches, and the batches are shuffled. The batch of a step follows from the
seed and the step alone, so that a resumed run goes on with the order it was stopped in, and that images can be
decoded before their turn.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from edit3dgs_ns.errors import UserError

Group = tuple[int, ...]
_EPOCHS_KEPT = 2
"""The one that is trained on, and the one that reading ahead has begun."""


class BatchOrder:
    """Batches of images of one group, by step."""

    def __init__(self, groups: Sequence[Group], batch_size: int, seed: int):
        """
        Args:
            groups: of every image; sortable.
            batch_size: images in a batch; the last of a group may be smaller.
            seed: of the order.
        """
        self._groups, self._batch_size, self._seed = groups, batch_size, seed
        self._allowed: Sequence[int] = range(len(groups))
        self._epochs: dict[int, list[list[int]]] = {}

    def restrict_to(self, indices: Sequence[int] | None) -> None:
        """Use only these images from now on; None for all of them.

        Raises:
            ValueError: no images at all.
        """
        if indices is not None and not indices:
            raise UserError("Training cannot be restricted to no images at all.")
        self._allowed = range(len(self._groups)) if indices is None else sorted(set(indices))
        self._epochs.clear()

    def __getitem__(self, step: int) -> list[int]:
        """The images of a step, counted from 0."""
        number, position = divmod(step, self._batches_per_epoch())
        return self._epoch(number)[position]

    def _batches_per_epoch(self) -> int:
        # The same in every epoch: only the order differs.
        return len(next(iter(self._epochs.values()), None) or self._epoch(0))

    def _epoch(self, number: int) -> list[list[int]]:
        if number not in self._epochs:
            batches = self._shuffled(number)
            while len(self._epochs) >= _EPOCHS_KEPT:
                del self._epochs[next(iter(self._epochs))]
            self._epochs[number] = batches
        return self._epochs[number]

    def _shuffled(self, number: int) -> list[list[int]]:
        generator = random.Random(f"{self._seed}/train/{number}")
        groups: dict[Group, list[int]] = defaultdict(list)
        for index in self._allowed:
            groups[self._groups[index]].append(index)
        batches = []
        for key in sorted(groups):
            members = groups[key]
            generator.shuffle(members)
            batches += [members[i : i + self._batch_size] for i in range(0, len(members), self._batch_size)]
        generator.shuffle(batches)
        return batches
