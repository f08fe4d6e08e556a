"""A capture of any number of 802 x 550 images, as large as NeRSemble's combined sets, made in minutes.

A few hundred pictures are made: the embedded head, ray traced from 16 cameras in four poses, each with the noise
of several sensors (which makes the files as large, and as slow to decode, as photographs of skin are). The files
of the capture are hard links to them, under the names, in the folders and with the JSON files of a `UNION10` set:
each file is read and decoded anew, and only the disk's space is saved.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from edit3dgs_ns.capture.cameras import FRONT_CAMERA
from edit3dgs_ns.capture.layout import SPLITS, frame_entry, transforms_text
from edit3dgs_ns.synthetic.replay import Replay
from edit3dgs_ns.synthetic.settings import read_settings
from edit3dgs_ns.synthetic.writer import write_capture

WIDTH, HEIGHT, CAMERAS, SEQUENCES = 550, 802, 16, 10
PERSON = 3
"""Seed of the head."""
NOISES = 5
"""Pictures of each pose and camera that differ by their noise."""
_NOISE = 1.5
"""Standard deviation of the noise, of 255."""


@dataclass(frozen=True)
class Picture:
    """The files that the frames of a capture are links to."""

    clean: Path
    """As it was ray traced."""
    noise: int
    image: Path
    mask: Path
    flame: Path


def make_pictures(folder: Path) -> list[list[Picture]]:
    """Ray trace and add noise; keeps what is there.

    Returns:
        [pose and noise][camera]: 20 x 16 pictures.
    """
    source = folder / "source"
    write_capture(source, seed=PERSON, width=WIDTH, height=HEIGHT, cameras=CAMERAS, frames=1, samples=1)
    sequences = sorted(path.parent for path in source.glob("*/images"))
    table = [
        [_picture(sequence, folder / f"noise_{noise}", noise, camera) for camera in range(CAMERAS)]
        for noise in range(NOISES)
        for sequence in sequences
    ]
    with ThreadPoolExecutor() as pool:
        list(pool.map(_write_noisy, (picture for row in table for picture in row)))
    return table


def _picture(sequence: Path, folder: Path, noise: int, camera: int) -> Picture:
    name = f"00000_{camera:02d}.png"
    return Picture(
        clean=sequence / "images" / name,
        noise=noise,
        image=folder / sequence.name / name,
        mask=sequence / "fg_masks" / name,
        flame=sequence / "flame_param" / "00000.npz",
    )


def _write_noisy(picture: Picture) -> None:
    if picture.image.is_file():
        return
    clean, mask = np.asarray(Image.open(picture.clean)), np.asarray(Image.open(picture.mask))
    noise = np.random.default_rng(picture.noise).normal(0, _NOISE, clean.shape)
    noisy = np.where(mask[:, :, None] > 0, np.rint(clean + noise), clean).clip(0, 255).astype(np.uint8)
    picture.image.parent.mkdir(parents=True, exist_ok=True)
    partial = picture.image.with_suffix(".part")
    Image.fromarray(noisy).save(partial, format="png")
    partial.replace(picture.image)


def write_large_capture(folder: Path, name: str, pictures: list[list[Picture]], images: int) -> Path:
    """Link the pictures into a combined set: training, a front camera held out, and an unseen last sequence.

    Args:
        folder: the one of `make_pictures`.
        name: of the new capture's folder in it.
        images: how many frames all splits have together.

    Returns:
        The folder of the combined set.
    """
    settings = read_settings(folder / "source")
    cameras, head = settings.rig(), Replay(settings).identity.head.assets.name
    union = folder / name / "UNION10_000"
    union.mkdir(parents=True)
    timesteps = math.ceil(images / CAMERAS / SEQUENCES)  # of each sequence
    splits: dict[str, list] = {split: [] for split in SPLITS}
    for number in range(images):
        index, camera = divmod(number, CAMERAS)
        sequence, timestep = divmod(index, timesteps)
        entry = frame_entry("../", f"SEQ-{sequence}", timestep, index, camera, cameras[camera], single=False)
        picture = pictures[index % len(pictures)][camera]
        _link(picture.image, union / entry["file_path"])
        _link(picture.mask, union / entry["fg_mask_path"])
        _link(picture.flame, union / entry["flame_param_path"])
        unseen = sequence == (math.ceil(images / CAMERAS) - 1) // timesteps
        splits["test" if unseen else "val" if camera == FRONT_CAMERA else "train"].append(entry)
    for split, entries in splits.items():
        (union / f"transforms_{split}.json").write_text(transforms_text(entries, cameras, head))
    return union


def _link(file: Path, link: Path) -> None:
    link = Path(os.path.normpath(link))
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        os.link(file, link)
