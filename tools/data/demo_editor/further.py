"""The edits besides those of a shard's six: named colours of parts, forms and expressions, of which every scene shows a few.

A further shard is an npz with `images` uint8 (scenes, SHOWN, H, W, 3), `edits` (scenes, SHOWN), keys of FURTHER, and `seeds`.
Colours cost a shading each, forms and expressions a ray tracing of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from edit3dgs_ns.synthetic.expression_edits import EXPRESSION_EDITS
from edit3dgs_ns.synthetic.form_edits import FORM_EDITS
from edit3dgs_ns.synthetic.named_colors import NAMED_COLORS, PARTS
from tools.data.demo_editor.settings import Settings
from tools.data.demo_editor.toy import toy_named

NEVER_TRAINED = (
    "hair_pink",
    "hair_grey",
    "brows_blue",
    "brows_red",
    "eyes_purple",
    "lips_green",
    "lips_white",
    "skin_purple",
    "skin_grey",
    "shirt_brown",
    "shirt_red",
)
"""A fifth of NAMED_COLORS. Each part and each colour is trained in other pairs; an editor has to put the two words together."""

TRAINED = tuple(key for key in NAMED_COLORS if key not in NEVER_TRAINED)
FORMS = (*FORM_EDITS, *EXPRESSION_EDITS)
FURTHER: dict[str, Any] = {**NAMED_COLORS, **FORM_EDITS, **EXPRESSION_EDITS}
"""By key; the order counts the edits in batches, after the plain and the open ones."""
COLORS_SHOWN, FORMS_SHOWN = 12, 3
"""Edits of a scene."""
SHOWN = COLORS_SHOWN + FORMS_SHOWN


def edits_of(seed: int) -> list[str]:
    """The edits that the scene with this seed is rendered after, colours first; scenes 2k and 2k + 1, of one person, share them."""
    rng = np.random.default_rng([5, seed // 2])
    # Each part is drawn equally often, however many colours it has.
    parts = [part_of(key) for key in TRAINED]
    weights = np.array([1.0 / parts.count(part) for part in parts])
    colors = rng.choice(len(TRAINED), COLORS_SHOWN, replace=False, p=weights / weights.sum())
    forms = rng.choice(len(FORMS), FORMS_SHOWN, replace=False)
    return [*(TRAINED[i] for i in colors), *(FORMS[i] for i in forms)]


def render_further(seed: int, settings: Settings) -> dict[str, np.ndarray]:
    """The scene with this seed after each of `edits_of`: `images` and `edits` of a further shard."""
    keys = edits_of(seed)
    if settings.toy:
        pictures = [toy_named(seed, settings.resolution, key, _toy_color(key)) for key in keys]
    else:
        pictures = _head_further(seed, settings.resolution, keys)
    images = np.rint(np.clip(np.stack(pictures), 0.0, 1.0) * 255.0).astype(np.uint8)
    return {"images": images, "edits": np.array(keys, "U24")}


def picture_of(seed: int, resolution: int, key: str | None) -> Float[np.ndarray, "h w 3"]:
    """The scene with this seed after one edit of FURTHER, or as it is."""
    from tools.data.demo_editor.data import scene_hits

    return _after(scene_hits(seed, resolution), key)


def _head_further(seed: int, resolution: int, keys: list[str]) -> list[Float[np.ndarray, "h w 3"]]:
    from tools.data.demo_editor.data import scene_hits

    seen = scene_hits(seed, resolution)
    return [_after(seen, key) for key in keys]


def _after(seen: tuple[Any, Any, Any, Any], key: str | None) -> Float[np.ndarray, "h w 3"]:
    from edit3dgs_ns.synthetic.scene import Scene
    from edit3dgs_ns.synthetic.true_edits import edited_frame, edited_person

    hits, frame, appearance, light = seen
    if key is None or key in NAMED_COLORS:
        look = NAMED_COLORS[key].apply(appearance) if key else appearance
        return hits.shade(look, light).rgb
    person, camera = hits.scene.identity, hits.camera
    scene = Scene(edited_person(person, key), edited_frame(frame, key, person.head))
    traced = scene.trace(camera.c2w, camera.K, camera.width, camera.height, samples_per_pixel=4)
    return traced.shade(appearance, light).rgb


def _toy_color(key: str) -> tuple[float, float, float] | None:
    from edit3dgs_ns.synthetic.named_colors import COLORS

    return COLORS[key.partition("_")[2]] if key in NAMED_COLORS else None


def load_numbers(paths: list[Path]) -> Int64[np.ndarray, "scenes shown"]:
    """The edits of further shards, as places in FURTHER."""
    places = {key: place for place, key in enumerate(FURTHER)}
    rows: list[list[int]] = []
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            rows += [[places[key] for key in scene] for scene in file["edits"].tolist()]
    return np.array(rows, np.int64).reshape(-1, SHOWN)


def part_of(key: str) -> str:
    """Of a key of NAMED_COLORS."""
    part = key.partition("_")[0]
    assert part in PARTS, key
    return part
