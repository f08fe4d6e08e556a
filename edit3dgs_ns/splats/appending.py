"""Adds Gaussians to those that are trained: parameters, the state of their optimizers and of the densification grow together."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor


@torch.no_grad()
def append_gaussians(
    params: MutableMapping[str, torch.nn.Parameter],
    optimizers: Mapping[str, torch.optim.Optimizer],
    state: MutableMapping[str, Any],
    added: Mapping[str, Tensor],
    binding: Int[Tensor, " added"],
) -> None:
    """Appends rows. Adam knows nothing of them yet: its moments are 0.

    Args:
        params: replaced by longer ones, in their optimizers too.
        optimizers: of the same names; without some while nothing is trained.
        state: of the densification; `binding` is in it.
        added: rows of every parameter.
        binding: the face of each.
    """
    assert set(added) == set(params), (sorted(added), sorted(params))
    for name, old in list(params.items()):
        new = torch.nn.Parameter(
            torch.cat([old.detach(), added[name].to(old)]), requires_grad=old.requires_grad
        )
        optimizer = optimizers.get(name)
        if optimizer is not None:
            _replace(optimizer, old, new)
        params[name] = new
    for key, value in state.items():
        if isinstance(value, Tensor):  # one row per Gaussian, as gsplat's operations have it
            rows = binding.to(value) if key == "binding" else value.new_zeros(len(binding), *value.shape[1:])
            state[key] = torch.cat([value, rows])


def _replace(optimizer: torch.optim.Optimizer, old: torch.nn.Parameter, new: torch.nn.Parameter) -> None:
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    if old not in optimizer.state:
        return
    moments = optimizer.state.pop(old)
    for key, value in moments.items():
        if isinstance(value, Tensor) and value.shape == old.shape:
            moments[key] = torch.cat([value, value.new_zeros(len(new) - len(old), *value.shape[1:])])
    optimizer.state[new] = moments
