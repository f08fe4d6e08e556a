"""Noise bound of every round of edits: it falls linearly, and never rises when a run is resumed.

Much noise at first lets the editor change shapes, little noise later only details (Haque et al., "Instruct-NeRF2NeRF", ICCV
2023). A run that is resumed with another number of rounds has reached a level: more noise than that would undo what the finer
rounds have settled. So its remaining rounds fall from that level to the last one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHARED_UNTIL = 0.695
"""Noise level down to which views share predictions where no model says another: there a UNet of many steps has decided the
appearance."""


def falling_noise(first: float, last: float, rounds: int) -> list[float]:
    """Noise of each round, a fraction of the diffusion schedule: from `first` linearly to `last` (`first` alone for one round)."""
    # Clamped, so that rounding cannot make it rise where a resumed run goes on from `last`.
    return [max(last, first + number / max(rounds - 1, 1) * (last - first)) for number in range(rounds)]


def resumed_noise(levels: Sequence[float], done: int, rounds: int, last: float) -> list[float]:
    """Noise of each round of a run that goes on with another number of rounds.

    The rounds that are done keep theirs; those that remain fall linearly from the level of the last of these to `last`.

    Args:
        levels: of the rounds as they were planned before.
        done: rounds that are done.
        rounds: rounds in all.
        last: noise of the last round.
    """
    if done < 1:
        return falling_noise(levels[0], last, rounds)
    reached = list(levels[:done])
    return reached + falling_noise(reached[-1], last, max(rounds - done, 0) + 1)[1:]


def level_of_timestep(timestep: float) -> float:
    """Noise level s / (a + s) at a timestep of Stable Diffusion's schedule, whose noisy latents are a x0 + s e; 1 from 1000 on."""
    if timestep >= 1000:
        return 1.0
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    squared = np.cumprod(1 - betas)[int(timestep)]
    signal, noise = np.sqrt(squared), np.sqrt(1 - squared)
    return float(noise / (signal + noise))
