"""Training pairs: one scene is an original and its six edited versions, with the same geometry, camera and light.

A shard is an npz with `images` uint8 (scenes, 7, H, W, 3) and `seeds` int64; scene seeds are consecutive, and
held-out scenes come from a range of their own, so their identities are never trained on. Several processes
may render at once: a shard is claimed by creating a lock file and appears by an atomic rename.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from .settings import EDIT_ORDER, Settings

HELDOUT_SEED = 1_000_000
"""First seed of the held-out scenes; training seeds stay below."""


def render_scene(seed: int, settings: Settings) -> UInt8[np.ndarray, "7 height width 3"]:
    """The original (first) and the edits in EDIT_ORDER of the scene with this seed."""
    pictures = (
        _toy_scene(seed, settings.resolution) if settings.toy else _head_scene(seed, settings.resolution)
    )
    return np.rint(np.clip(np.stack(pictures), 0.0, 1.0) * 255.0).astype(np.uint8)


def _head_scene(seed: int, resolution: int) -> list[np.ndarray]:
    from edit3dgs_ns import capture

    rng = np.random.default_rng(seed)
    scene = capture.random_scene(rng, _identity(seed // 2))
    camera = capture.random_camera(rng, resolution, resolution)
    light = capture.random_light(rng)
    hits = scene.trace(camera.c2w, camera.K, resolution, resolution, samples_per_pixel=4)
    appearance = scene.identity.appearance
    looks = [appearance, *(capture.EDITS[key].apply(appearance) for key in EDIT_ORDER)]
    return [hits.shade(look, light).rgb for look in looks]


@lru_cache(maxsize=1)
def _identity(seed: int) -> Any:
    """Neighbouring scenes share a person: preparing one takes as long as a picture."""
    from edit3dgs_ns import capture

    return capture.random_identity(seed)


def _toy_scene(seed: int, resolution: int) -> list[np.ndarray]:
    """An ellipse (skin) with a cap (hair) and a dot (lips) on white; each edit recolours some of them."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:resolution, :resolution] + 0.5) / resolution
    cx, cy, rx, ry = 0.5 + rng.uniform(-0.08, 0.08, 2).tolist()[0], 0.5, *rng.uniform(0.22, 0.36, 2)
    head = _soft(1.0 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2, resolution)
    hair = head * _soft((cy - 0.35 * ry) - y, resolution)
    lips = head * _soft(0.02 - ((x - cx) ** 2 + (y - cy - 0.5 * ry) ** 2) * 2.0, resolution)
    shade = 0.8 + 0.2 * (cx - x)[..., None] / rx
    skin_color, hair_color = rng.uniform(0.45, 0.9, 3), rng.uniform(0.05, 0.4, 3)
    plain = {"skin": skin_color, "hair": hair_color, "lips": np.array([0.7, 0.35, 0.35])}
    changes: tuple[dict[str, object], ...] = (
        {},
        {"hair": np.full(3, 0.8), "skin": 0.8 * skin_color},
        {"skin": np.array([0.3, 0.7, 0.3])},
        {"hair": np.array([0.9, 0.75, 0.4])},
        {"lips": np.array([0.9, 0.0, 0.1])},
        {
            "skin": np.array([0.7, 0.5, 0.25]),
            "hair": np.array([0.6, 0.4, 0.2]),
            "lips": np.array([0.6, 0.4, 0.2]),
        },
        {"skin": np.array([0.93, 0.93, 0.96]), "lips": np.array([0.35, 0.0, 0.05]), "hair": np.full(3, 0.05)},
    )
    pictures = []
    for change in changes:
        colors = {**plain, **change}
        image = np.ones((resolution, resolution, 3))
        for part, mask in (("skin", head), ("hair", hair), ("lips", lips)):
            image = image * (1.0 - mask[..., None]) + mask[..., None] * colors[part] * shade
        pictures.append(image)
    return pictures


def _soft(inside: np.ndarray, resolution: int) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(inside * resolution, -30, 30)))


def write_shards(folder: Path, first_seed: int, scenes: int, settings: Settings, minutes: float) -> int:
    """Render the missing shards until `scenes` exist or the time is over; returns the scenes rendered here."""
    folder.mkdir(parents=True, exist_ok=True)
    deadline, done, size = time.monotonic() + 60.0 * minutes, 0, settings.scenes_per_shard
    for index in range(-(-scenes // size)):
        path = folder / f"{index:05d}.npz"
        if path.exists() or time.monotonic() > deadline or not _claim(path):
            continue
        seeds = np.arange(first_seed + index * size, first_seed + (index + 1) * size)
        try:
            save_npz(
                path, images=np.stack([render_scene(int(seed), settings) for seed in seeds]), seeds=seeds
            )
        finally:
            _lock(path).unlink(missing_ok=True)
        done += size
        if index % 10 == 0:
            print(f"data: shard {index}, {(index + 1) * size} scenes", flush=True)
    return done


def _lock(path: Path) -> Path:
    return path.with_suffix(".lock")


def _claim(path: Path) -> bool:
    """True when this process made the lock; a lock older than ten minutes was left by a killed one."""
    lock = _lock(path)
    if lock.exists() and time.time() - lock.stat().st_mtime > 600:
        lock.unlink(missing_ok=True)
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return not path.exists()


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Compressed npz that is either whole or not there."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    os.replace(partial, path)


def shards(folder: Path) -> list[Path]:
    """The finished shards of a folder in order."""
    return sorted(folder.glob("[0-9]*.npz")) if folder.exists() else []


def load_images(paths: list[Path]) -> UInt8[np.ndarray, "scenes 7 height width 3"]:
    """The pictures of some shards, one after the other."""
    if not paths:
        raise FileNotFoundError("No rendered scenes in the work folder: run the `data` stage first.")
    parts = []
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            parts.append(file["images"])
    return np.concatenate(parts)
