"""Data-parallel training in a few single-threaded processes on one machine.

Two threads of one process wait for each other after every layer; on a machine that does other work too, that costs ten
times what it gains. Processes of a team meet once per step: they average their gradients in shared memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

PATIENCE_SECONDS = 900.0
"""A member whose partner was killed gives up after this long."""


class Team:
    """The processes that train one model; all members hold equal weights and see different samples."""

    def __init__(self, size: int, parameters: int) -> None:
        """Args: parameters: number of scalars of the model, for the shared memory."""
        context = mp.get_context("spawn")
        self.rank, self.size = 0, size
        self._barrier: Any = context.Barrier(size)
        self._gradients = torch.zeros(size, parameters if size > 1 else 0).share_memory_()
        self._spent = torch.zeros(1, dtype=torch.float64).share_memory_()

    def start(self, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Run work(*arguments, team) in every process; this one is rank 0. Returns when it has finished."""
        others = []
        for rank in range(1, self.size):
            process = mp.get_context("spawn").Process(
                target=_member, args=(self, rank, work, arguments), daemon=True
            )
            process.start()
            others.append(process)
        if self.size > 1:
            torch.set_num_threads(1)
        work(*arguments, self)
        for process in others:
            process.join()

    def agree(self, spent: float) -> float:
        """Rank 0's value, in every process."""
        if self.rank == 0:
            self._spent[0] = spent
        self._meet()
        return float(self._spent[0])

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[nn.Parameter], spent: float) -> float:
        """Replace the gradients by their mean over the team; returns rank 0's `spent`."""
        if self.size == 1:
            return spent
        grads: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        mine = self._gradients[self.rank]
        offset = 0
        for grad in grads:
            mine[offset : offset + grad.numel()].view(grad.shape).copy_(grad)
            offset += grad.numel()
        agreed = self.agree(spent)
        mean = self._gradients[:, :offset].mean(dim=0)
        self._meet()
        offset = 0
        for grad in grads:
            grad.copy_(mean[offset : offset + grad.numel()].view(grad.shape))
            offset += grad.numel()
        return agreed

    def _meet(self) -> None:
        if self.size > 1:
            self._barrier.wait(PATIENCE_SECONDS)


def _member(team: Team, rank: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    team.rank = rank
    work(*arguments, team)
