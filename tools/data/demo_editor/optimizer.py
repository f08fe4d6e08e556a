"""Muon for weight matrices, Adam for the rest: few steps must go far here.

Muon (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024) replaces the momentum of a weight
matrix by the nearest matrix with equal singular values, so weak directions (fine detail, here) learn as fast as strong ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.93
ITERATIONS = 4


def orthogonalize(matrix: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Singular values pushed to about 1 by the quintic Newton-Schulz iteration, in bfloat16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16()
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.T).to(matrix.dtype)


class Optimizer:
    """Muon on inner weights of two and more dimensions, Adam on biases, norms, embeddings and the outermost layers."""

    def __init__(self, module: nn.Module, outer: tuple[str, ...]) -> None:
        """Args: outer: parts of parameter names that Adam takes."""
        inner, rest = [], []
        for name, parameter in module.named_parameters():
            (rest if parameter.ndim < 2 or any(part in name for part in outer) else inner).append(parameter)
        self.inner = inner
        self.momentum = [torch.zeros_like(p) for p in inner]
        self.adam = torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.99), weight_decay=0.0)

    @torch.no_grad()
    def step(self, muon_rate: float, adam_rate: float) -> None:
        """One step; then the gradients are gone."""
        for parameter, momentum in zip(self.inner, self.momentum, strict=True):
            if parameter.grad is None:
                continue
            momentum.lerp_(parameter.grad, 1.0 - MOMENTUM)
            ahead = torch.lerp(parameter.grad, momentum, MOMENTUM)
            rows = ahead.reshape(len(ahead), -1)
            update = orthogonalize(rows) * max(1.0, rows.shape[0] / rows.shape[1]) ** 0.5
            parameter.sub_(update.reshape(parameter.shape), alpha=muon_rate)
            parameter.grad = None
        for group in self.adam.param_groups:
            group["lr"] = adam_rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers."""
        return {"momentum": self.momentum, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a saved state over."""
        for mine, saved in zip(self.momentum, state["momentum"], strict=True):
            mine.copy_(saved)
        self.adam.load_state_dict(state["adam"])
