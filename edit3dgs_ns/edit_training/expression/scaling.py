"""Another strength of an edit of expression, as a new version of a run's avatar."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.splats.checkpoints import read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from edit3dgs_ns.edit_training.versions import RunHistory, Version

OPTION = "--expression-scale"
MOST = 2.0
_PARTS = ("expression_offset", "jaw_offset", "offset_scale")
"""Of the head, see `splats.rig`."""


def scale_expression(history: RunHistory, scale: float) -> Version:
    """Adds a version with `scale` times the fitted offset of expression, and makes it the run's avatar; nothing else changes.

    It stands beside the version that was scaled: both are edits of the same avatar.

    Args:
        history: of the run.
        scale: 0 (none) to 2; 1 is as it was fitted, whatever the scale is now.

    Raises:
        UserError: the scale is out of range, or the avatar has no offset of expression.
    """
    import torch

    if not (math.isfinite(scale) and 0 <= scale <= MOST):
        raise UserError(
            f"{OPTION} {scale}: expected a number from 0 to {MOST:g}; 1 is as the edit was fitted."
        )
    current = history.keep_current()
    content = read_checkpoint(history.checkpoint(current.number), OPTION)
    state = dict(content["pipeline"])
    keys = {name: key for key in state for name in _PARTS if key.endswith(f"head.{name}")}
    offset = [state[keys[name]] for name in _PARTS[:2] if name in keys]
    if len(keys) < len(_PARTS) or not any(bool(part.any()) for part in offset):
        raise UserError(
            f"{OPTION} {scale}: version {current.number} of {history.run} has no offset of expression. Edits of expression "
            '("make her smile") have one; `edit3dgs history RUN` shows it.'
        )
    state[keys[_PARTS[2]]] = torch.full_like(state[keys[_PARTS[2]]], scale)
    path = history.folder / f"step-{current.step:09d}.ckpt"
    with written_beside(path) as partial:
        write_checkpoint({**content, "pipeline": state}, partial)
    expression = {**current.options.get("expression", {}), "scale": scale}
    parent = current.number if current.parent is None else current.parent
    prompt = current.prompt or f"expression at {scale:g}"
    try:
        return history.add(path, prompt, parent, {**current.options, "expression": expression})
    finally:
        path.unlink()
