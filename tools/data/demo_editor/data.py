"""Training pairs: one scene is an original and its six edited versions, with the same geometry, camera and light.

A shard is an npz with `images` uint8 (scenes, 7, H, W, 3) and `seeds` int64; an open shard holds the same scenes
after the open edits, (scenes, edits, hues, H, W, 3), and a further shard after some of the many others, see `further`.
Scene seeds are consecutive, and held-out scenes come from a range of their own, so their identities are never trained
on. Several processes may render at once: a shard is claimed by creating a lock file and appears by an atomic rename.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from edit3dgs_ns.files import written_beside
from tools.data.demo_editor.settings import EDIT_ORDER, HUES, OPEN_ORDER, Settings
from tools.data.demo_editor.toy import toy_open, toy_scene

HELDOUT_SEED = 1_000_000
"""First seed of the held-out scenes; training seeds stay below."""


def render_scene(seed: int, settings: Settings) -> UInt8[np.ndarray, "7 height width 3"]:
    """The original (first) and the edits in EDIT_ORDER of the scene with this seed."""
    pictures = (
        toy_scene(seed, settings.resolution) if settings.toy else _head_scene(seed, settings.resolution)
    )
    return np.rint(np.clip(np.stack(pictures), 0.0, 1.0) * 255.0).astype(np.uint8)


def render_open(seed: int, settings: Settings) -> UInt8[np.ndarray, "edits hues height width 3"]:
    """The scene with this seed after every edit of OPEN_ORDER in every hue."""
    pictures = toy_open(seed, settings.resolution) if settings.toy else _head_open(seed, settings.resolution)
    return np.rint(np.clip(pictures, 0.0, 1.0) * 255.0).astype(np.uint8)


def _head_scene(seed: int, resolution: int) -> list[np.ndarray]:
    from edit3dgs_ns.synthetic.edits import EDITS

    hits, _, appearance, light = scene_hits(seed, resolution)
    looks = [appearance, *(EDITS[key].apply(appearance) for key in EDIT_ORDER)]
    return [hits.shade(look, light).rgb for look in looks]


def _head_open(seed: int, resolution: int) -> np.ndarray:
    from edit3dgs_ns.synthetic.edits import OPEN_EDITS

    hits, _, appearance, light = scene_hits(seed, resolution)
    return np.stack([
        [hits.shade(OPEN_EDITS[key].apply(appearance, hue / HUES), light).rgb for hue in range(HUES)]
        for key in OPEN_ORDER
    ])  # fmt: skip


def scene_hits(seed: int, resolution: int) -> tuple[Any, Any, Any, Any]:
    """What the scene's camera sees, the pose and expression, the person's looks, and the light."""
    from edit3dgs_ns.synthetic.sampling import random_camera, random_frame, random_light
    from edit3dgs_ns.synthetic.scene import Scene

    rng = np.random.default_rng(seed)
    identity = _identity(seed // 2)
    frame = random_frame(rng, identity)
    scene = Scene(identity, frame)
    camera = random_camera(rng, resolution, resolution)
    light = random_light(rng)
    hits = scene.trace(camera.c2w, camera.K, resolution, resolution, samples_per_pixel=4)
    return hits, frame, identity.appearance, light


@lru_cache(maxsize=1)
def _identity(seed: int) -> Any:
    """Neighbouring scenes share a person: preparing one takes as long as a picture."""
    from edit3dgs_ns.synthetic.identity import random_identity

    return random_identity(seed)


Render = Callable[[int, Settings], np.ndarray | dict[str, np.ndarray]]
"""The pictures of the scene with a seed, or several arrays by name, `images` among them."""


def write_shards(
    folder: Path,
    first_seed: int,
    scenes: int,
    settings: Settings,
    minutes: float,
    render: Render = render_scene,
) -> int:
    """Render the missing shards until `scenes` exist or the time is over; returns the scenes rendered here.

    Args:
        render: `render_scene`, `render_open` or `further.render_further`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline, done, size = time.monotonic() + 60.0 * minutes, 0, settings.scenes_per_shard
    for index in range(-(-scenes // size)):
        path = folder / f"{index:05d}.npz"
        if path.exists() or time.monotonic() > deadline or not _claim(path):
            continue
        seeds = np.arange(first_seed + index * size, first_seed + (index + 1) * size)
        try:
            save_npz(path, seeds=seeds, **_stacked([render(int(seed), settings) for seed in seeds]))
        finally:
            _lock(path).unlink(missing_ok=True)
        done += size
        if index % 10 == 0:
            print(f"data: shard {index}, {(index + 1) * size} scenes", flush=True)
    return done


def _stacked(scenes: list[np.ndarray | dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    named = [scene if isinstance(scene, dict) else {"images": scene} for scene in scenes]
    return {name: np.stack([scene[name] for scene in named]) for name in named[0]}


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
    with written_beside(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def shards(folder: Path) -> list[Path]:
    """The finished shards of a folder in order."""
    return sorted(folder.glob("[0-9]*.npz")) if folder.exists() else []


def same_scenes(paths: list[Path], plain: list[Path]) -> list[Path]:
    """The first shards that show the scenes of as many plain ones, where some in between may not be rendered yet."""
    pairs = zip(paths, plain, strict=False)
    return [path for path, _ in takewhile(lambda pair: pair[0].name == pair[1].name, pairs)]


def load_images(paths: list[Path]) -> UInt8[np.ndarray, "scenes *pictures height width 3"]:
    """The pictures of some shards, one after the other: 7 of a scene, (edits, hues) of open shards, SHOWN of further ones."""
    if not paths:
        raise FileNotFoundError("No rendered scenes in the work folder: run the `data` stage first.")
    parts = []
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            parts.append(file["images"])
    return np.concatenate(parts)
