"""Writes what a tracked capture is made of: images with masks, head parameters, transforms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.capture.layout import SPLITS, flame_param_bytes, png_bytes, transforms_text
from edit3dgs_ns.files import write_atomically
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.tracking.detector import PersonSegmenter
from edit3dgs_ns.tracking.foreground import cleaned, steadied
from edit3dgs_ns.tracking.parallel import in_threads, read_ahead

CANONICAL_JAW = 0.3
"""Radians that the canonical head's mouth is open, as in VHAP's exports."""


@dataclass(frozen=True)
class View:
    """One image of a camera, before it is written."""

    image: UInt8[np.ndarray, "height width 3"]
    mask: Float[np.ndarray, "height width"] | None = None
    """Share of each pixel that shows the person, in [0, 1]; None segments."""


@dataclass(frozen=True)
class ViewFiles:
    """Where an image and its mask are."""

    image: Path
    mask: Path

    @classmethod
    def at(cls, folder: Path, timestep: int, camera: int = 0) -> ViewFiles:
        """Their places in a capture."""
        name = f"{timestep:05d}_{camera:02d}.png"
        return cls(folder / "images" / name, folder / "fg_masks" / name)

    def are_there(self) -> bool:
        """Whether both were written."""
        return self.image.is_file() and self.mask.is_file()


def write_views(
    files: Sequence[ViewFiles],
    views: Iterable[View],
    faces: Float[np.ndarray, "T 2"],
    done: Callable[[int], None],
    *,
    clean: bool = True,
) -> None:
    """Write the consecutive images of one camera with their masks; those of a run before are kept if none is missing.

    Args:
        files: of each view.
        views: as many; they are taken once, in order.
        faces: a point in the face in each view, pixels.
        done: is told how many views are done, after each.
        clean: average masks over time, and keep the part that holds the face.
    """
    if all(file.are_there() for file in files):
        return
    masks = read_ahead(_masks(files, views))

    def write(numbered: tuple[int, np.ndarray]) -> None:
        t, mask = numbered
        mask = cleaned(mask, (float(faces[t, 0]), float(faces[t, 1]))) if clean else mask
        write_atomically(files[t].mask, png_bytes(mask))

    for t, _ in enumerate(in_threads(write, enumerate(steadied(masks) if clean else masks))):
        done(t + 1)


def _masks(files: Sequence[ViewFiles], views: Iterable[View]) -> Iterator[np.ndarray]:
    """The masks as they are found; images are written on the way, so that a video is decoded once."""
    with PersonSegmenter() as segmenter, ThreadPoolExecutor(1) as writer:
        writing: Future[None] | None = None
        for file, view in zip(files, views, strict=False):  # whoever called counts what was written
            if writing:
                writing.result()
            writing = None if file.image.is_file() else writer.submit(_write_image, file.image, view.image)
            yield segmenter.segment(view.image) if view.mask is None else view.mask
        if writing:
            writing.result()


def _write_image(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    write_atomically(path, png_bytes(image))


def write_head_parameters(folder: Path, motion: FlameMotion) -> None:
    """Writes flame_param/ with one file a timestep, and canonical_flame_param.npz, of a motion with static offsets."""
    assert motion.static_offset is not None
    shape, offset = motion.shape.numpy(), motion.static_offset.numpy()
    rows = ("expr", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation")
    for t in range(len(motion)):
        frame = {row: getattr(motion, row)[t].numpy() for row in rows}
        write_atomically(folder / "flame_param" / f"{t:05d}.npz", flame_param_bytes(frame, shape, offset))
    canonical = {row: np.zeros_like(getattr(motion, row)[0].numpy()) for row in rows}
    canonical["jaw_pose"][0] = CANONICAL_JAW
    write_atomically(folder / "canonical_flame_param.npz", flame_param_bytes(canonical, shape, offset))


def write_transforms(
    folder: Path,
    entries: Mapping[str, list[dict[str, Any]]],
    cameras: dict[int, Camera],
    head: str,
    fps: float,
) -> None:
    """Writes the transforms files of the three splits."""
    for split in SPLITS:
        text = transforms_text(entries[split], cameras, head, principal_point=True, fps=fps)
        write_atomically(folder / f"transforms_{split}.json", text.encode())
