"""Nerfstudio's train lock: whoever holds it may change the avatar, and nobody draws it meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def viewer_may_draw(trainer: Any, pipeline: nn.Module) -> Iterator[None]:
    """Within a training step that only looks at the avatar for seconds or minutes: let the viewer draw it meanwhile.

    Args:
        trainer: holds the lock; without a viewer nothing happens.
        pipeline: stays in evaluation mode meanwhile, so that nobody who draws has to switch it.
    """
    if getattr(trainer, "viewer_state", None) is None:
        yield
        return
    training = pipeline.training
    pipeline.eval()
    trainer.train_lock.release()
    try:
        yield
    finally:
        trainer.train_lock.acquire()
        pipeline.train(training)
