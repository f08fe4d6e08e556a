"""Training pictures: scenes of random people, each with every look; and what is true of them.

A shard is an npz with `images` uint8 (scenes, looks, side, side, 3), `looks` (their names) and one array for each fact. Scene
seeds are consecutive; each scene is another person; held-out scenes come from a range of their own.
"""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tools.data.demo_clip.captions import HAIR, PLAIN, Facts, looks
from tools.data.demo_clip.settings import Settings
from tools.data.demo_editor.data import save_npz
from tools.data.demo_editor.data import shards as shards  # the same layout of the folder

HELDOUT_SEED = 2_000_000
"""First seed of the held-out scenes and people; training seeds stay below."""
_CURLY, _LONG = ("curly",), ("bob", "long", "wavy")
_OPEN_JAW, _SHUT_LID, _SMILE = 0.15, 0.7, 0.35
"""From here on a mouth is called open (radians), an eye shut and a face smiling (weights of the named actions)."""

Scene = tuple[UInt8[np.ndarray, "looks side side 3"], Facts]


def render_scene(seed: int, settings: Settings) -> Scene:
    """Every look of the scene with this seed, in the order of `looks()`, and what is true of all of them."""
    pictures, facts = (
        _toy_scene(seed, settings.stored) if settings.toy else _head_scene(seed, settings.stored)
    )
    return np.rint(np.clip(np.stack(pictures), 0.0, 1.0) * 255.0).astype(np.uint8), facts


def _head_scene(seed: int, side: int) -> tuple[list[np.ndarray], Facts]:
    from edit3dgs_ns.synthetic.edits import edited
    from edit3dgs_ns.synthetic.identity import random_identity
    from edit3dgs_ns.synthetic.sampling import random_camera, random_frame, random_light
    from edit3dgs_ns.synthetic.scene import Scene

    rng = np.random.default_rng([seed, 60])
    identity = random_identity(seed)
    frame = random_frame(rng, identity)
    camera, light = random_camera(rng, side, side), random_light(rng)
    hits = Scene(identity, frame).trace(camera.c2w, camera.K, side, side, samples_per_pixel=4)
    own = identity.appearance
    hue = float(rng.random())
    shown = [own if look == PLAIN else edited(own, look, hue) for look in looks()]
    return [hits.shade(look, light).rgb for look in shown], _facts(identity, frame)


def _facts(identity, frame) -> Facts:  # type: ignore[no-untyped-def]
    assets = identity.head.assets

    def action(name: str) -> float:
        return float(
            np.mean([frame.expr[assets.expression_index(f"{name}{side}")] for side in ("Left", "Right")])
        )

    style = identity.style.name
    return Facts(
        male=bool(identity.shape[assets.shape_names.index("gender_male")] > -0.3),
        hair="curly" if style in _CURLY else "long" if style in _LONG else "short",
        mouth_open=bool(frame.jaw_pose[0] > _OPEN_JAW),
        eyes_shut=bool(action("eyeBlink") > _SHUT_LID),
        smiling=bool(action("mouthSmile") > _SMILE),
    )


def _toy_scene(seed: int, side: int) -> tuple[list[np.ndarray], Facts]:
    """A tall (man) or wide (woman) ellipse on white, in one colour for each look."""
    rng = np.random.default_rng(seed)
    male = bool(rng.random() < 0.5)
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    rx, ry = (0.2, 0.38) if male else (0.38, 0.2)
    inside = ((x / rx) ** 2 + (y / ry) ** 2 < 1)[..., None]
    palette = np.random.default_rng(5).uniform(0.1, 0.9, (len(looks()), 3))
    pictures = [np.where(inside, color + rng.normal(0, 0.02, 3), 1.0) for color in palette]
    return pictures, Facts(male=male)


def write_shards(
    folder: Path, first_seed: int, scenes: int, settings: Settings, part: int = 0, parts: int = 1
) -> int:
    """Render the shards that are missing; returns the scenes rendered here.

    Args:
        folder: where they go; each appears whole or not at all.
        first_seed: of the scenes.
        scenes: how many, rounded up to whole shards.
        settings: size and look.
        part, parts: of several processes each renders every `parts`-th shard.
    """
    done, size, start = 0, settings.scenes_per_shard, time.monotonic()
    for index in range(part, -(-scenes // size), parts):
        path = folder / f"{index:05d}.npz"
        if path.exists():
            continue
        seeds = range(first_seed + index * size, first_seed + (index + 1) * size)
        _save(path, [render_scene(seed, settings) for seed in seeds])
        done += size
        if (index // parts) % 5 == 0:
            print(
                f"data: {folder.name} {index:05d}, {done / (time.monotonic() - start):.1f} scenes/s",
                flush=True,
            )
    return done


def _save(path: Path, scenes: list[Scene]) -> None:
    table = {
        "male": np.array([facts.male for _, facts in scenes]),
        "hair": np.array([HAIR.index(facts.hair) if facts.hair else -1 for _, facts in scenes]),
    }
    for name in ("mouth_open", "eyes_shut", "smiling"):
        table[name] = np.array([-1 if getattr(f, name) is None else int(getattr(f, name)) for _, f in scenes])
    images = np.stack([pictures for pictures, _ in scenes])
    save_npz(path, images=images, looks=np.array(looks()), **table)


def load(paths: list[Path]) -> tuple[UInt8[np.ndarray, "pictures side side 3"], list[Facts]]:
    """Every picture of some shards, and what is true of each.

    Raises:
        FileNotFoundError: there are no shards.
        ValueError: they were rendered when the capture knew other edits.
    """
    if not paths:
        raise FileNotFoundError("No rendered scenes in the work folder: run the `data` stage first.")
    images: list[np.ndarray] = []
    facts: list[Facts] = []
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            names = tuple(file["looks"].tolist())
            if names != looks():
                raise ValueError(
                    f"{path} has the looks {', '.join(names)}; the capture now has {', '.join(looks())}. "
                    "Remove the shards and run the `data` stage again."
                )
            table = {field.name: file[field.name] for field in fields(Facts) if field.name != "look"}
            own = file["images"]
        images.append(own.reshape(-1, *own.shape[2:]))
        for scene in range(len(own)):
            facts += [_row(table, scene, look) for look in names]
    return np.concatenate(images), facts


def _row(table: dict[str, np.ndarray], scene: int, look: str) -> Facts:
    hair = int(table["hair"][scene])
    known = {
        name: bool(table[name][scene])
        for name in ("mouth_open", "eyes_shut", "smiling")
        if int(table[name][scene]) >= 0
    }
    return Facts(look=look, male=bool(table["male"][scene]), hair=HAIR[hair] if hair >= 0 else None, **known)
