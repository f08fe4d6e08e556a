"""`keep auto`: whether eyes and mouth keep what their originals show, decided from what the first edits make of them.

An edit that leaves eyes and mouth alone still stains them: what is painted around them runs in, by as much as the paint itself. How
    much they change therefore says nothing. Their pattern of light and dark does: iris and white, teeth and the dark between them
    stay what they are under a stain, and go when the edit changes them (a statue's eyes are bronze). The pattern is measured by
    the slope of the edit's brightness on the original's, and by their correlation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float


class Masks(Protocol):
    """Says what of views is kept; see `KeepMasks`."""

    def settings(self) -> dict[str, Any] | None:
        """As JSON values."""
        ...

    def masks(
        self, images: Float[np.ndarray, "views height width 3"], view_ids: Sequence[int]
    ) -> Float[np.ndarray, "views height width"] | None:
        """1 where a view is kept; None if nothing ever is."""
        ...


AUTO = "auto"
PARTS = ("eyes", "mouth")
"""What is kept."""
_SPOKEN_OF = re.compile(
    r"\b(eye\w*|iris\w*|pupils?|gaze|mouth\w*|teeth|tooth\w*|tongue\w*|gums?|fangs?|dentures?|braces|grin\w*|smil\w*|zombie\w*"
    r"|expression\w*|happ(?:y|ier|ily|iness)|joy\w*|cheerful\w*|laugh\w*|surpris\w*|astonish\w*|amaze\w*|shocked|angr\w*|anger"
    r"|furious\w*|frown\w*|scowl\w*|sad|sadder|sadness|cry|crying|disgust\w*|scared|afraid|fear\w*|yawn\w*|wink\w*|pout\w*"
    r"|(?:rais|lift|lower|knit|furrow|arch)\w*\b.{0,20}\bbrows?)\b",
    re.IGNORECASE,
)
"""Words of a prompt that may mean eyes or the mouth's inside, or an expression: nothing is kept then. (Brows, lids
and lips are skin: their colours leave eyes and mouth alone.)"""
_LEAST_SLOPE, _LEAST_CORRELATION = 0.65, 0.9
"""Of the demo's editor: 0.84 to 1.02 and 0.97 to 0.99 where an edit leaves eyes and mouth alone, 0.3 to 0.5 and 0.9 for statues."""
_LEAST_PIXELS = 30
"""A view that shows less of them says nothing."""
_SOLID = 0.5
"""Share of a pixel that shows eyes or mouth."""


@dataclass(frozen=True)
class Pattern:
    """How much of the pattern of light and dark in eyes and mouth is left after an edit: 1 is all of it."""

    slope: float
    correlation: float

    @property
    def is_kept(self) -> bool:
        """The edit leaves eyes and mouth alone."""
        return self.slope >= _LEAST_SLOPE and self.correlation >= _LEAST_CORRELATION


def speaks_of_them(prompt: str) -> bool:
    """Whether a prompt speaks of eyes or the mouth's inside, so that they are not kept."""
    return _SPOKEN_OF.search(prompt) is not None


def pattern_left(
    originals: Float[np.ndarray, "views height width 3"],
    edits: Float[np.ndarray, "views height width 3"],
    masks: Float[np.ndarray, "views height width"],
) -> Pattern | None:
    """The median over the views that show eyes or mouth; None if none shows enough of them.

    Args:
        originals: the views before the edit.
        edits: the same after it, with nothing kept.
        masks: how much of each pixel shows eyes or mouth.
    """
    found = []
    for original, edit, mask in zip(originals, edits, masks, strict=True):
        inside = mask > _SOLID
        before, after = (image[inside].mean(axis=-1) for image in (original, edit))
        if inside.sum() < _LEAST_PIXELS or before.std() < 1e-3:
            continue
        covariance = np.mean((before - before.mean()) * (after - after.mean()))
        correlation = covariance / (before.std() * after.std()) if after.std() > 1e-6 else 0.0
        found.append((covariance / before.var(), correlation))
    if not found:
        return None
    slope, correlation = np.median(found, axis=0)
    return Pattern(float(slope), float(correlation))


class AutoKeep:
    """Keeps eyes and mouth once an edit was seen to leave them alone; what a run keeps in any case is kept as ever.

    Args:
        always: masks of what is kept in any case.
        wanted: masks of the same and of eyes and mouth.
        only_parts: masks of eyes and mouth alone.
    """

    def __init__(self, always: Masks, wanted: Masks, only_parts: Masks):
        self._always, self._wanted, self._only_parts = always, wanted, only_parts
        self.kept: bool | None = None
        """What was decided; None as long as nothing is."""

    def settings(self) -> dict[str, Any]:
        """As JSON values."""
        return {"auto": self._wanted.settings()}

    def masks(
        self, images: Float[np.ndarray, "views height width 3"], view_ids: Sequence[int]
    ) -> Float[np.ndarray, "views height width"] | None:
        """See `KeepMasks.masks`; without eyes and mouth until it is decided that they are kept."""
        return (self._wanted if self.kept else self._always).masks(images, view_ids)

    def pattern(
        self,
        originals: Float[np.ndarray, "views height width 3"],
        edits: Float[np.ndarray, "views height width 3"],
        view_ids: Sequence[int],
    ) -> Pattern | None:
        """What the edits leave of the pattern; see `pattern_left`."""
        masks = self._only_parts.masks(originals, view_ids)
        return None if masks is None else pattern_left(originals, edits, masks)

    def put_back(
        self,
        originals: Float[np.ndarray, "views height width 3"],
        edits: Float[np.ndarray, "views height width 3"],
        view_ids: Sequence[int],
    ) -> Float[np.ndarray, "views height width 3"]:
        """Edits that were made before the decision, with the originals where eyes and mouth are."""
        masks = self._only_parts.masks(originals, view_ids)
        if masks is None:
            return edits
        result: np.ndarray = masks[..., None] * originals + (1 - masks[..., None]) * edits
        return result.astype(np.float32)
