"""Batch size of a model's forward passes, reduced automatically when the device runs out of memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch

logger = logging.getLogger(__name__)


class ForwardLimit:
    """How many views, and whether all guidance branches, go through a model together.

    When the device runs out of memory, the limit falls and the work goes on; it stays low from then on. What
    is computed does not depend on it.

    Args:
        views: views at once to begin with.
    """

    def __init__(self, views: int):
        self.views = views
        self.branches_apart = False
        self._reason = ""

    def each(self, views: Sequence[int], forward: Callable[[Sequence[int]], None], branches: int = 1) -> None:
        """Call `forward` with consecutive parts of `views` until all are done.

        Where one view is too much and it has several guidance branches, `forward` is to separate these.

        Raises:
            torch.OutOfMemoryError: the smallest part does not fit; the message says what to change.
        """
        begin = 0
        while begin < len(views):
            part = views[begin : begin + self.views]
            if self._fits(partial(forward, part)):
                begin += len(part)
            elif len(part) > 1:
                self._lower_views((len(part) + 1) // 2)
            else:
                self._separate_branches(branches, "--pipeline.editor.resolution 512 (or less)")

    def whole(self, forward: Callable[[], None], branches: int = 1) -> None:
        """Call `forward`, whose views cannot be parted, until it fits.

        Raises:
            torch.OutOfMemoryError: it does not fit; the message says what to change.
        """
        while not self._fits(forward):
            self._separate_branches(branches, "a higher --pipeline.editor.views-per-key (fewer key views)")

    def _fits(self, forward: Callable[[], None]) -> bool:
        try:
            forward()
        except torch.OutOfMemoryError as error:
            self._reason = str(error)
        else:
            return True
        # Here and not above: the exception holds the frames, and with them the tensors, of the failed forward.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return False

    def _lower_views(self, views: int) -> None:
        logger.warning(
            "The device is out of memory with %d views at once: going on with %d. "
            "To begin with that: --pipeline.editor.views-per-forward %d",
            min(2 * views, self.views),
            views,
            views,
        )
        self.views = views

    def _separate_branches(self, branches: int, advice: str) -> None:
        if self.branches_apart or branches == 1:
            raise torch.OutOfMemoryError(
                f"The device has not enough memory for the diffusion model at this image size: {self._reason}\nTry "
                f"{advice}, --pipeline.editor.dtype float16, or --pipeline.editor.offload model."
            )
        logger.warning(
            "The device is out of memory: the guidance branches are computed one by one from now on."
        )
        self.branches_apart = True
