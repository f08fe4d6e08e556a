"""Masks of named parts of the head in the views of a batch, and what of a view is kept of its original.

Where masks come from is exchangeable. The rig knows them: the faces of a region, drawn with everything that hides them. A detector
    (Grounding DINO with SAM 2) finds in an image what a phrase says.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import maximum_filter

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.regions import FLAME_MASK_NAMES, MASKS_HINT

logger = logging.getLogger(__name__)

PARTS: Mapping[str, tuple[str, ...]] = {
    "eyes": ("eyes",),
    "mouth": ("mouth", "teeth", "gums", "tongue"),
    "hair": ("scalp",),
}
"""What users call a part -> the regions of a rig that make it, as many of them as the rig has. Lids and lips are skin, which
an edit may paint or age: kept along, they would stand out of a green face as patches. `eyelids` and `lips` name them."""
_GROWN = 1 / 64
"""`only` lets the edit reach this share of the longer side beyond its part, one of usually 64 latent pixels: the soft border of the
kept rest else eats into the part."""


class MaskSource(Protocol):
    """Finds parts of the head in views."""

    def settings(self) -> dict[str, Any]:
        """What decides the masks besides the views and the phrases, as JSON values."""
        ...

    def check(self, phrases: Sequence[str]) -> None:
        """Raise a ValueError for phrases that this source cannot know, before anything long begins."""
        ...

    def masks(
        self,
        images: Float[np.ndarray, "views height width 3"],
        view_ids: Sequence[int],
        phrases: Sequence[str],
    ) -> list[Float[np.ndarray, "height width"] | None]:
        """How much of every pixel shows any of the parts, in [0, 1].

        Args:
            images: the views.
            view_ids: numbers of the views, the same from call to call.
            phrases: names of parts.

        Returns:
            For each view its mask, or None where nothing was found.
        """
        ...


class RigMasks:
    """A `MaskSource` that the rig answers: exact, and nothing that is hidden is in a mask.

    Args:
        regions: faces of every region of the rig.
        num_faces: of the rig.
        draw: gives for a view and a choice of faces how much of every pixel shows these faces.
    """

    def __init__(
        self,
        regions: Mapping[str, np.ndarray],
        num_faces: int,
        draw: Callable[[int, Bool[np.ndarray, " faces"]], Float[np.ndarray, "height width"]],
    ):
        self._regions, self._num_faces, self._draw = regions, num_faces, draw

    def settings(self) -> dict[str, Any]:
        """See `MaskSource.settings`; what the rig shows changes with the avatar alone."""
        return {}

    def check(self, phrases: Sequence[str]) -> None:
        """Raise a ValueError for names that are no part or region of the rig; it lists those that are."""
        self.faces(phrases)

    def faces(self, names: Sequence[str]) -> Bool[np.ndarray, " faces"]:
        """Which faces belong to any of the parts or regions.

        Raises:
            ValueError: there is no such part or region.
        """
        chosen = np.zeros(self._num_faces, bool)
        for name in names:
            members = [region for region in PARTS.get(name, (name,)) if region in self._regions]
            if not members:
                hint = f" {MASKS_HINT}" if set(PARTS.get(name, (name,))) & set(FLAME_MASK_NAMES) else ""
                raise UserError(
                    f"the rig has no region {name!r}; it has {', '.join(self.names()) or 'none'}.{hint}"
                )
            for region in members:
                chosen[self._regions[region]] = True
        return chosen

    def names(self) -> list[str]:
        """All names that are understood."""
        parts = {part for part, members in PARTS.items() if any(m in self._regions for m in members)}
        return sorted(parts | set(self._regions))

    def masks(
        self,
        images: Float[np.ndarray, "views height width 3"],
        view_ids: Sequence[int],
        phrases: Sequence[str],
    ) -> list[Float[np.ndarray, "height width"] | None]:
        """See `MaskSource.masks`; the images are not looked at. A part that a view does not show has an empty mask."""
        faces = self.faces(phrases)
        return [self._draw(view, faces) for view in view_ids]


class KeepMasks:
    """What the views of a run keep of their originals.

    Args:
        source: finds the parts.
        keep: parts that are kept.
        only: parts outside of which everything is kept; () if the whole view is edited.
        name: what to call the source in records.
        margin: how far around the parts is kept with them, as a share of the images' longer side.
    """

    def __init__(
        self,
        source: MaskSource,
        keep: Sequence[str],
        only: Sequence[str] = (),
        name: str = "rig",
        margin: float = 0.0,
    ):
        self._source, self._keep, self._only, self._name = source, tuple(keep), tuple(only), name
        self._margin = margin
        self._said = False

    def settings(self) -> dict[str, Any] | None:
        """As JSON values; None if nothing is kept."""
        if not (self._keep or self._only):
            return None
        parts = {"keep": sorted(self._keep), "only": sorted(self._only)}
        margin = {"margin": self._margin} if self._margin else {}
        return {**self._source.settings(), "masks": self._name, **parts, **margin}

    def masks(
        self, images: Float[np.ndarray, "views height width 3"], view_ids: Sequence[int]
    ) -> Float[np.ndarray, "views height width"] | None:
        """1 where a view is kept, for `EditRequest.keep_mask`; None if nothing ever is.

        A view in which nothing is found is edited without retention; with `only` it has nothing to edit and is kept whole.
        """
        if not (self._keep or self._only):
            return None
        result = np.zeros(images.shape[:3], np.float32)
        if self._only:
            result[:] = 1.0
            for place, mask in enumerate(self._find(images, view_ids, self._only)):
                if mask is not None:
                    result[place] -= _grown(mask, _GROWN)
        if self._keep:
            for place, mask in enumerate(self._find(images, view_ids, self._keep)):
                if mask is not None:
                    wide = _grown(mask, self._margin) if self._margin else mask
                    np.maximum(result[place], wide, out=result[place])
        return result.clip(0.0, 1.0)

    def _find(
        self, images: np.ndarray, view_ids: Sequence[int], phrases: Sequence[str]
    ) -> list[np.ndarray | None]:
        masks = self._source.masks(images, view_ids, phrases)
        missing = [view for view, mask in zip(view_ids, masks, strict=True) if mask is None]
        if missing and not self._said:
            self._said = True
            logger.warning(
                "Not found in view %d: %s. It is edited as if it had none. (Said once; there may be more such views.)",
                missing[0],
                " or ".join(phrases),
            )
        return masks


def parse_parts(text: str) -> tuple[str, ...]:
    """The parts in a list like "eyes, mouth" or "the eyes. the mouth"; "none" and "" are no parts."""
    names = tuple(dict.fromkeys(part.strip().lower() for part in re.split("[,.;?]", text) if part.strip()))
    return () if names == ("none",) else names


def _grown(mask: Float[np.ndarray, "height width"], by: float) -> Float[np.ndarray, "height width"]:
    return maximum_filter(mask, size=2 * round(by * max(mask.shape)) + 1)
