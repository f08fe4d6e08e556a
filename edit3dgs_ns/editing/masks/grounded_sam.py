"""Masks from words: Grounding DINO finds boxes for phrases, SAM 2 turns boxes into masks, and what was found is kept on disk.

The rig gives the same parts exactly and for nothing (`RigMasks`); this source knows what no rig has: a hat, a beard, glasses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from edit3dgs_ns.editing.masks.grounded_sam_cache import Box, Found, MaskCache, default_folder, image_key
from edit3dgs_ns.editing.masks.grounded_sam_options import GroundedSamOptions

logger = logging.getLogger(__name__)

PHRASES: Mapping[str, str] = {
    "eyes": "the eyes",
    "eye_left": "the left eye",
    "eye_right": "the right eye",
    "eyelids": "the eyelids",
    "brows": "the eyebrows",
    "mouth": "the mouth",
    "lips": "the lips",
    "teeth": "the teeth",
    "teeth_upper": "the upper teeth",
    "teeth_lower": "the lower teeth",
    "gums": "the gums",
    "tongue": "the tongue",
    "hair": "the hair",
    "scalp": "the hair",
    "nose": "the nose",
    "ears": "the ears",
    "face": "the face",
    "forehead": "the forehead",
    "neck": "the neck",
    "skin": "the skin",
}
"""Names of parts and regions of a rig -> what to ask a detector for. Anything else is asked for as it is."""


class BoxFinder(Protocol):
    """Finds boxes for phrases; `grounding_dino.GroundingDino` is one."""

    settings: dict[str, Any]

    def check(self, phrases: Sequence[str]) -> None:
        """Raise a ValueError for phrases that it cannot look for."""
        ...

    def detect(
        self, images: UInt8[np.ndarray, "views height width 3"], phrases: Sequence[str]
    ) -> list[tuple[Box, ...]]:
        """The boxes of every view."""
        ...


class Segmenter(Protocol):
    """Turns boxes into masks; `sam2_segmenter.Sam2` is one."""

    settings: dict[str, Any]

    def segment(
        self, images: UInt8[np.ndarray, "views height width 3"], boxes: Sequence[Sequence[Box]]
    ) -> list[Bool[np.ndarray, "height width"]]:
        """For each view the union of the masks of its boxes."""
        ...


class GroundedSamMasks:
    """A `MaskSource` that detects phrases in images.

    Args:
        detector: finds boxes.
        segmenter: turns them into masks.
        cache: folder that keeps what was found.
        views_per_forward: views that go through the models together.
    """

    def __init__(self, detector: BoxFinder, segmenter: Segmenter, cache: Path, *, views_per_forward: int = 4):
        self._detector, self._segmenter = detector, segmenter
        self._folder, self._views = Path(cache), views_per_forward
        self._said: set[str] = set()

    def settings(self) -> dict[str, Any]:
        """What decides the masks besides the views and the phrases, as JSON values."""
        return {**self._detector.settings, **self._segmenter.settings}

    def check(self, phrases: Sequence[str]) -> None:
        """Raise a ValueError for phrases that no detector can look for."""
        if phrases:
            self._detector.check(asked_for(phrases))

    def masks(
        self,
        images: Float[np.ndarray, "views height width 3"],
        view_ids: Sequence[int],
        phrases: Sequence[str],
    ) -> list[Float[np.ndarray, "height width"] | None]:
        """See `MaskSource.masks`; the same image gets the same mask in any position of the batch."""
        asked = asked_for(phrases)
        cache = MaskCache(self._folder, {"version": 1, "phrases": list(asked), **self.settings()})
        pixels = np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)
        keys = [image_key(image) for image in pixels]
        found: dict[str, Found | None] = {
            key: cache.get(image) for key, image in zip(keys, pixels, strict=True)
        }
        new = {key: place for place, key in enumerate(keys) if found[key] is None}
        for part in _parts(list(new.values()), self._views):
            for place, result in zip(part, self._find(pixels[part], asked), strict=True):
                cache.put(pixels[place], result)
                found[keys[place]] = result
        results = [found[key] for key in keys]
        self._say_what_is_missing(asked, view_ids, results)
        return [None if r is None or not r.mask.any() else r.mask.astype(np.float32) for r in results]

    def _find(self, pixels: UInt8[np.ndarray, "views height width 3"], phrases: Sequence[str]) -> list[Found]:
        boxes = self._detector.detect(pixels, phrases)
        shown = [view for view, of_view in enumerate(boxes) if of_view]
        masks = self._segmenter.segment(pixels[shown], [boxes[view] for view in shown]) if shown else []
        nothing = np.zeros(pixels.shape[1:3], bool)
        of_view = dict(zip(shown, masks, strict=True))
        return [Found(of_view.get(view, nothing), found) for view, found in enumerate(boxes)]

    def _say_what_is_missing(
        self, phrases: Sequence[str], view_ids: Sequence[int], results: Sequence[Found | None]
    ) -> None:
        """Some phrases found and others not: easily overlooked. (Nothing found at all is the caller's to say.)"""
        for view, result in zip(view_ids, results, strict=True):
            names = {name for box in result.boxes for name in box.phrases} if result else set()
            for phrase in phrases:
                if names and phrase not in names and phrase not in self._said:
                    self._said.add(phrase)
                    logger.warning(
                        "%r was not found in view %d, only %s. (Said once; there may be more such views. Lower thresholds "
                        "find more: --pipeline.grounded-sam.box-threshold, text-threshold.)",
                        phrase,
                        view,
                        ", ".join(sorted(names)),
                    )


def asked_for(names: Sequence[str]) -> tuple[str, ...]:
    """What a detector is asked for, given names of parts or free text."""
    return tuple(dict.fromkeys(PHRASES.get(name, name.replace("_", " ")) for name in names))


def load_grounded_sam(options: GroundedSamOptions, device: str | torch.device = "cpu") -> GroundedSamMasks:
    """The source of masks that options describe; all that can be wrong with its weights is found here.

    Args:
        options: see there.
        device: where the models run, if the options do not say.

    Raises:
        FileNotFoundError: weights are not there.
        ValueError: a number is out of range, a file is none of the right kind, or a package is not installed.
    """
    options.check()
    # The packages first, and the quicker of the models: what is missing shows before gigabytes are read.
    from edit3dgs_ns.editing.masks.grounding_dino import load_detector
    from edit3dgs_ns.editing.masks.sam2_segmenter import check_installed, load_segmenter

    check_installed()
    place = device if options.device == "auto" else options.device
    detector = load_detector(
        options.detector,
        backend=options.detector_backend,
        tokenizer=options.tokenizer,
        box_threshold=options.box_threshold,
        text_threshold=options.text_threshold,
        resolution=options.resolution,
        device=place,
    )
    return GroundedSamMasks(
        detector,
        load_segmenter(options.segmenter, device=place),
        default_folder() if options.cache is None else Path(options.cache).expanduser(),
        views_per_forward=options.views_per_forward,
    )


def _parts(places: list[int], size: int) -> Iterator[list[int]]:
    for begin in range(0, len(places), size):
        yield places[begin : begin + size]
