"""The judgement of an edited batch: each view by itself and against its original, then against its siblings.

Thresholds are in colours from 0 to 1 and in shares of the image's longer side; `tools/measure/judge` measures on planted faults and
    on true edits how many are found and how many good views are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.judging.registration import Similarity, register, undone
from edit3dgs_ns.editing.judging.siblings import SharedCells, distances, expected_change, low_change

Fault = Literal["not finite", "one colour", "unchanged", "moved", "unlike the others"]

_ONE_COLOR = 0.012
"""Standard deviation over the head below which a view shows nothing. (Bronze, the flattest true edit, has 0.1.)"""
_UNCHANGED = 0.05
"""Change without fine detail below which an edit did not take, in the most changed hundredth of the head."""
_VISIBLE_CHANGE = 1.5
"""A view with nothing to change may stay as it is: it is unchanged where siblings changed by this many times as much..."""
_CLEARLY_LESS = 0.5
"""...and it changed by less than this share of what they did."""
_LEAST_EDITABLE = 0.01
"""Share of the head that a request must leave to the edit for an unchanged view to be a fault."""
_MOVED = 0.004
"""Displacement that is let through: one pixel of 256."""
_LOST = 0.02
"""Share of the head that an image which is moved back may lack."""
_FAR = 0.10
"""Colour distance to the siblings from which a view may be refused."""
_FAR_TIMES = 3.0
"""It is, where the others are this many times nearer to each other: where no two views agree, none is to blame."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What was found of one edited view."""

    image: Float[np.ndarray, "height width 3"]
    """As it came, or moved back into place."""
    fault: Fault | None = None
    """Why it is refused; None if it is not."""
    detail: str = ""
    """What was measured, for a reader."""
    mended: Similarity | None = None
    """The movement that was undone."""

    def record(self) -> dict[str, Any]:
        """What is worth keeping with an accepted view, as JSON values."""
        if self.mended is None:
            return {}
        shift = [round(value, 2) for value in self.mended.shift]
        return {"mended": {"scale": round(self.mended.scale, 4), "shift": shift}}


ADVICE: dict[Fault, str] = {
    "not finite": "half precision can overflow: --pipeline.editor.dtype float32 (or bfloat16); else the weights are damaged",
    "one colour": "the model's weights or its precision may be at fault: --pipeline.editor.dtype float32",
    "unchanged": (
        "the edit did not take: a higher --pipeline.editor.guidance-scale, a lower --pipeline.editor.image-guidance-scale, a "
        "higher --pipeline.noise-first, or another prompt"
    ),
    "moved": "the model does not keep the head in its place: a higher --pipeline.editor.image-guidance-scale",
    "unlike the others": "--pipeline.editor.correspondence rig with --pipeline.anchors makes views agree",
}
"""What a user can do about a fault."""


def judge_views(request: EditRequest, images: Sequence[Float[np.ndarray, "height width 3"]]) -> list[Verdict]:
    """The verdicts on all views of a batch, in its order. Views of which nothing bad is known are accepted."""
    alone = [judge_alone(request, view, image) for view, image in enumerate(images)]
    return judge_together(request, alone)


def judge_alone(request: EditRequest, view: int, image: Float[np.ndarray, "height width 3"]) -> Verdict:
    """The verdict on one view, from itself and its original: not finite, of one colour, or moved.

    Args:
        request: what was asked for.
        view: position in the request.
        image: its edit.
    """
    bad = image.size - int(np.isfinite(image).sum())
    if bad:
        return Verdict(image, "not finite", f"{bad} of {image.size} values")
    head = head_of(request, view)
    if not head.any():
        return Verdict(image)
    spread = float(image[head].std(axis=0).max())
    if spread < _ONE_COLOR:
        return Verdict(image, "one colour", f"the head's colours spread by {spread:.3f}")
    return _in_place(request.originals[view], image, head)


def judge_together(request: EditRequest, alone: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts after the views that are good by themselves have been compared: unchanged, and unlike the others."""
    result = list(alone)
    good = np.array([verdict.fault is None for verdict in alone])
    images = np.stack([v.image if ok else o for v, o, ok in zip(alone, request.originals, good, strict=True)])
    for view, detail in _unchanged(request, images, good).items():
        result[view] = replace(result[view], fault="unchanged", detail=detail)
        good[view] = False
    for view, detail in _far(request, images, good).items():
        result[view] = replace(result[view], fault="unlike the others", detail=detail)
    return result


def head_of(request: EditRequest, view: int) -> Bool[np.ndarray, "height width"]:
    """Where a view shows the head: as the rig says, else what is not white in the original."""
    if request.canonical is not None:
        return np.isfinite(request.canonical[view]).all(axis=-1)
    return request.originals[view].min(axis=-1) < 0.97


# -- against the original ------------------------------------------------------------------------------------------


def _in_place(
    original: Float[np.ndarray, "height width 3"],
    image: Float[np.ndarray, "height width 3"],
    head: Bool[np.ndarray, "height width"],
) -> Verdict:
    """Whether the head is where it was; moved back if nothing of it is lost by that."""
    size = (head.shape[0], head.shape[1])
    found = register(original, image, head)
    if found is None or found.displacement(size, head) <= _MOVED:
        return Verdict(image)
    detail = f"scale {found.scale:.3f}, shift {found.shift[0]:.1f} and {found.shift[1]:.1f} pixels"
    back, known = undone(image, found)
    again = register(original, back, head)
    if (head & ~known).sum() > _LOST * head.sum():
        return Verdict(image, "moved", f"{detail}, and parts of the head are cut off")
    if again is None or again.displacement(size, head) > _MOVED:
        return Verdict(image, "moved", f"{detail}, and more than that")
    return Verdict(back, mended=found, detail=detail)


def _unchanged(
    request: EditRequest, images: Float[np.ndarray, "views height width 3"], good: Bool[np.ndarray, " views"]
) -> dict[int, str]:
    """Views that look like their originals although they show what an edit changes."""
    changes = np.stack([low_change(o, i) for o, i in zip(request.originals, images, strict=True)])
    if request.keep_mask is not None:
        changes = changes * (request.keep_mask < 0.5)
    amounts: dict[int, float] = {}
    for view in np.flatnonzero(good):
        head = head_of(request, int(view))
        editable = head if request.keep_mask is None else head & (request.keep_mask[view] < 0.5)
        if editable.sum() >= max(_LEAST_EDITABLE * head.sum(), 1):
            amounts[int(view)] = float(np.percentile(changes[view][editable], 99))
    still = [view for view, amount in amounts.items() if amount < _UNCHANGED]
    moving = [view for view in amounts if view not in still]
    if not moving or request.canonical is None:
        return {view: f"it changed by {amounts[view]:.3f} at most" for view in still}
    result = {}
    for view in still:
        expected = expected_change(changes, request.canonical, view, moving)
        if expected > _VISIBLE_CHANGE * _UNCHANGED and amounts[view] < _CLEARLY_LESS * expected:
            result[view] = (
                f"it changed by {amounts[view]:.3f} at most, the others by {expected:.3f} at the same places"
            )
    return result


# -- against the siblings ------------------------------------------------------------------------------------------


def _far(
    request: EditRequest, images: Float[np.ndarray, "views height width 3"], good: Bool[np.ndarray, " views"]
) -> dict[int, str]:
    """Views whose colours are not those of the others: the farthest first, which then stands for nothing any more."""
    if request.canonical is None:
        return {}
    cells = SharedCells(request.canonical)
    after, before = cells.colors(images), cells.colors(request.originals)
    usable, result = good.copy(), dict[int, str]()
    while True:
        edited, plain = distances(after, usable), distances(before, usable)
        own = {
            view: max(far - near, 0.0)
            for view, (far, near) in enumerate(zip(edited, plain, strict=True))
            if usable[view] and view not in request.anchors and far is not None and near is not None
        }
        if not own:
            return result
        worst = max(own, key=lambda view: own[view])
        usable[worst] = False
        others = [d for view, d in enumerate(distances(after, usable)) if d is not None and usable[view]]
        if own[worst] < _FAR or not others or own[worst] < _FAR_TIMES * float(np.median(others)):
            return result
        result[worst] = f"its colours differ from theirs by {own[worst]:.2f} where they show the same"
