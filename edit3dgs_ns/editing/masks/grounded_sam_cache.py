"""Masks on disk: what was found in an image once is not searched again, in this run or another.

    <folder>/<hash of the settings>/settings.json      what decides the masks besides the image: words, weights, thresholds
    <folder>/<hash of the settings>/<hash of the image>.png

A mask is an image of one bit per pixel; the boxes it was made from are in it as text. All black means that nothing was found.
Files appear under their names complete, and their names come from hashes only.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from edit3dgs_ns.editing.store import settings_hash
from edit3dgs_ns.files import write_durably

logger = logging.getLogger(__name__)

_BOXES = "boxes"


@dataclass(frozen=True)
class Box:
    """Where something was found."""

    corners: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels; pixel (0, 0) reaches from 0 to 1."""
    score: float
    """Confidence, from 0 to 1."""
    phrases: tuple[str, ...]
    """What it is called."""


@dataclass(frozen=True)
class Found:
    """What was found in an image."""

    mask: Bool[np.ndarray, "height width"]
    boxes: tuple[Box, ...]


class MaskCache:
    """Masks found with one choice of words, weights and thresholds.

    Args:
        folder: of all caches; made when the first mask is put in.
        settings: JSON values that decide the masks besides the image.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.folder = Path(folder) / settings_hash(settings)
        self._settings = dict(settings)

    def get(self, image: UInt8[np.ndarray, "height width 3"]) -> Found | None:
        """What was found in this image, or None if it was not searched yet or the file is damaged."""
        path = self._path(image)
        if not path.is_file():
            return None
        try:
            with Image.open(path) as stored:
                mask = np.array(stored.convert("1"), bool)
                boxes = tuple(_box(entry) for entry in json.loads(stored.info[_BOXES]))
        except (
            OSError,
            SyntaxError,
            ValueError,
            KeyError,
            TypeError,
        ) as error:  # Pillow's errors are of the first two kinds
            logger.warning("The stored mask %s is damaged and will be made again: %s", path, error)
            return None
        if mask.shape != image.shape[:2]:
            logger.warning("The stored mask %s has another size than its image and will be made again.", path)
            return None
        return Found(mask, boxes)

    def put(self, image: UInt8[np.ndarray, "height width 3"], found: Found) -> None:
        """Keep what was found in an image."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "settings.json"
        if not settings.is_file():
            write_durably(settings, (json.dumps(self._settings, indent=1, sort_keys=True) + "\n").encode())
        text, buffer = PngInfo(), io.BytesIO()
        text.add_text(_BOXES, json.dumps([asdict(box) for box in found.boxes]))
        Image.fromarray(found.mask).save(buffer, format="PNG", pnginfo=text)
        write_durably(self._path(image), buffer.getvalue())

    def _path(self, image: UInt8[np.ndarray, "height width 3"]) -> Path:
        return self.folder / f"{image_key(image)}.png"


def image_key(image: UInt8[np.ndarray, "height width 3"]) -> str:
    """A name for an image, made from its pixels."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]


def default_folder() -> Path:
    """`edit3dgs/masks` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edit3dgs" / "masks"


def _box(entry: Mapping[str, Any]) -> Box:
    left, top, right, bottom = map(float, entry["corners"])
    phrases: Sequence[Any] = entry["phrases"]
    return Box((left, top, right, bottom), float(entry["score"]), tuple(map(str, phrases)))
