"""Batches of views of synthetic people with their true edits, and faults that are planted in them."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.ndimage import affine_transform

from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.synthetic.edits import edited
from edit3dgs_ns.synthetic.replay import Replay
from edit3dgs_ns.synthetic.scene import Hits
from edit3dgs_ns.synthetic.settings import CaptureSettings

CAMERAS = 5
"""Views of a batch."""

Image = Float[np.ndarray, "height width 3"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Views of one person at one timestep."""

    hits: tuple[Hits, ...]
    replay: Replay

    @cached_property
    def originals(self) -> Float[np.ndarray, "views height width 3"]:
        """Before any edit."""
        return np.stack([hits.shade(self.replay.identity.appearance).rgb for hits in self.hits])

    @cached_property
    def canonical(self) -> Float[np.ndarray, "views height width 3"]:
        """Rest position of what every pixel shows."""
        return np.stack([_places(hits) for hits in self.hits])

    def truth(self, edit: str, hue: float | None = None) -> Float[np.ndarray, "views height width 3"]:
        """The true edited views."""
        look = edited(self.replay.identity.appearance, edit, hue)
        return np.stack([hits.shade(look).rgb for hits in self.hits])

    def request(self, prompt: str, noise: float = 0.98) -> EditRequest:
        """The batch, as a run asks for it."""
        cameras = [hits.camera for hits in self.hits]
        return EditRequest(
            prompt=prompt,
            images=self.originals,
            originals=self.originals,
            c2w=np.stack([camera.c2w for camera in cameras]).astype(np.float32),
            K=np.stack([camera.K for camera in cameras]).astype(np.float32),
            canonical=self.canonical,
            noise=noise,
        )


def batches(count: int, size: int) -> Iterator[Batch]:
    """Batches of different people who talk, with cameras on an arc of 150 degrees.

    Args:
        count: batches.
        size: side of the images, pixels.
    """
    for number in range(count):
        settings = CaptureSettings(
            seed=100 + number, width=size, height=size, cameras=CAMERAS, frames=8, samples=4
        )
        replay = Replay(settings)
        sequence = sorted(replay.motion)[number % len(replay.motion)]
        yield Batch(
            tuple(replay.trace(sequence, (3 * number) % 8, camera) for camera in replay.cameras), replay
        )


def _places(hits: Hits) -> Image:
    """Mean rest position in every pixel that is mostly covered, NaN elsewhere."""
    total = hits.fragments_per_pixel(hits.fragments.weight)
    sums = np.stack(
        [hits.fragments_per_pixel(hits.fragments.weight * hits.points[:, k]) for k in range(3)], axis=1
    )
    places = np.where(total[:, None] > 0.5, sums / np.maximum(total, 1e-9)[:, None], np.nan)
    return places.reshape(hits.camera.height, hits.camera.width, 3).astype(np.float32)


# -- faults --------------------------------------------------------------------------------------------------------


def shifted(image: Image, pixels: float = 6.0, direction: float = 0.0) -> Image:
    """Moved by some pixels; the border is repeated."""
    offset = -pixels * np.array([np.sin(direction), np.cos(direction)])
    return _moved(image, 1.0, offset)


def scaled(image: Image, factor: float) -> Image:
    """Grown about the image's centre."""
    centre = (np.array(image.shape[:2]) - 1) / 2
    return _moved(image, 1 / factor, centre - centre / factor)


def _moved(image: Image, factor: float, offset: Float[np.ndarray, " 2"]) -> Image:
    layers = [
        affine_transform(image[..., k], np.array([factor] * 2), offset, order=1, mode="nearest")
        for k in range(3)
    ]
    return np.stack(layers, axis=-1).astype(np.float32)


def other_hue(image: Image) -> Image:
    """All colours a third of a turn further; grey ones, which have no hue, painted."""
    turn = np.array([colorsys.hsv_to_rgb(1 / 3, 0.6, 1.0)])
    painted = np.roll(image, 1, axis=-1)
    return (0.5 * painted + 0.5 * painted.mean(axis=-1, keepdims=True) * turn).clip(0, 1).astype(np.float32)


def planted(image: Image, original: Image, number: int) -> Mapping[str, Callable[[], Image]]:
    """Faults that are planted in a good view, by their kind.

    Args:
        image: the good view.
        original: the view before the edit.
        number: of the view; decides directions.
    """
    spoilt = image.copy()
    spoilt[number % len(image), number % image.shape[1]] = np.nan
    return {
        "not finite": lambda: spoilt,
        "black": lambda: np.zeros_like(image),
        "unchanged": lambda: original,
        "shifted 6 px": lambda: shifted(image, 6.0, 2.4 * number),
        "scaled 1.02": lambda: scaled(image, 1.02),
        "scaled 1.1": lambda: scaled(image, 1.1),
        "other hue": lambda: np.where(original.min(axis=-1, keepdims=True) < 0.999, other_hue(image), image),
    }
