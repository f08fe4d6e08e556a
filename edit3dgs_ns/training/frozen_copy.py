"""A copy of an avatar, kept while the original goes on changing: for before and after, and as the start of an edit."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor

from edit3dgs_ns.training.controls import AvatarControls
from edit3dgs_ns.training.model import RiggedSplatfactoModel


def frozen_avatar(
    model: RiggedSplatfactoModel, state: Mapping[str, Tensor] | None = None
) -> RiggedSplatfactoModel:
    """A copy of an avatar that only renders; it shares with the original what never changes (the head model, the capture's data).

    Args:
        model: the original.
        state: of the same head; the copy has it instead of the original's.

    Raises:
        ValueError: `state` is no rigged avatar, or one of another head model.
    """
    # What belongs to training or to a viewer stays behind; a deep copy takes the place of each from this list.
    left_behind: list[tuple[Any, Any]] = [
        (model.optimizers, {}),
        (model.info, {}),
        (model._shown, None),
        (model.backdrop, None),
        (model.strategy_state, {}),
        (model._image_loss, None),
        (model.controls, AvatarControls()),
    ]
    shared = [model.head.flame, model.kwargs, model.config, model.strategy, model._lpips]
    replacements = {id(old): new for old, new in left_behind if old is not None}
    replacements |= {id(thing): thing for thing in shared}
    copy = deepcopy(model, replacements)
    copy.head.forget_shape()
    copy._start_strategy()
    if state is not None:
        copy.load_state_dict(dict(state))
    copy.eval()
    copy.requires_grad_(False)
    return copy
