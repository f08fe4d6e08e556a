"""Training state that survives a kill: saved atomically, loaded with weights_only; averages of weights."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edit3dgs_ns.files import written_beside


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write next to the file, then rename: a kill leaves the old state or the new one, never half."""
    with written_beside(path) as partial:
        torch.save(state, partial)


def load_state(path: Path) -> dict[str, Any] | None:
    """The saved state, or None when there is none yet."""
    return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None


class Average:
    """Exponential moving average of a module's parameters, with a short memory at the start."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.shadow = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Blend the current parameters in."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        names, parameters = zip(*module.named_parameters(), strict=True)
        torch._foreach_lerp_(
            [self.shadow[name] for name in names], [p.detach() for p in parameters], 1.0 - decay
        )

    def copy_to(self, module: nn.Module) -> None:
        """Write the averaged parameters into a module of the same shape."""
        with torch.no_grad():
            for name, p in module.named_parameters():
                p.copy_(self.shadow[name])

    def state_dict(self) -> dict[str, Any]:
        """Tensors and the count of updates."""
        return {"shadow": self.shadow, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a saved average over."""
        for name, value in state["shadow"].items():
            self.shadow[name].copy_(value)
        self.steps = state["steps"]


class Clock:
    """Training seconds over all runs of a stage, and when to save or stop."""

    def __init__(self, minutes: float, spent: float = 0.0, save_every: float = 120.0) -> None:
        self.budget, self.before, self.save_every = 60.0 * minutes, spent, save_every
        self.start = self.saved = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds of this stage so far, earlier runs included."""
        return self.before + time.monotonic() - self.start

    @property
    def progress(self) -> float:
        """Share of the budget that is used, in [0, 1]."""
        return min(1.0, self.spent / max(self.budget, 1e-6))

    def save_due(self) -> bool:
        """True once per saving interval."""
        due = time.monotonic() - self.saved > self.save_every
        if due:
            self.saved = time.monotonic()
        return due
