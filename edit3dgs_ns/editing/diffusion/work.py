"""Progress of a batch through a diffusion model (encodings, denoising steps, decodings), and the memory of weights."""

from __future__ import annotations

import torch

from edit3dgs_ns.editing.editor import Progress


class Work:
    """Counts what is done of a batch, one for every view that is encoded, goes through a step, or is decoded.

    Args:
        progress: told whenever something is done.
        views: of the batch.
        encodings: how often each view is encoded.
        steps: denoising steps; may be set again once the schedule is known.
    """

    def __init__(self, progress: Progress | None, views: int, encodings: int, steps: int):
        self._progress, self._views, self._encodings = progress, views, encodings
        self.steps, self._done = steps, 0

    def add(self, views: int = 1) -> None:
        """Something is done for a number of views."""
        self._done += views
        if self._progress is not None:
            self._progress(self._done, self._views * (self._encodings + self.steps + 1))


def weight_bytes(*models: torch.nn.Module) -> int:
    """Memory that the models' parameters take."""
    return sum(p.numel() * p.element_size() for model in models for p in model.parameters())
