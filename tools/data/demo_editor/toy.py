"""Scenes for trying the tool in seconds: a coloured ellipse (skin) with a cap (hair) and a dot (lips) on white."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from tools.data.demo_editor.settings import HUES, OPEN_ORDER

_STATUE = {
    "skin": np.array([0.7, 0.5, 0.25]),
    "hair": np.array([0.6, 0.4, 0.2]),
    "lips": np.array([0.6, 0.4, 0.2]),
}
_VAMPIRE = {
    "skin": np.array([0.93, 0.93, 0.96]),
    "lips": np.array([0.35, 0.0, 0.05]),
    "hair": np.full(3, 0.05),
}


def toy_scene(seed: int, resolution: int) -> list[np.ndarray]:
    """The scene, and after each edit of EDIT_ORDER; every edit recolours some of its parts."""
    toy = _Toy(seed, resolution)
    aged = {"hair": np.full(3, 0.8), "skin": 0.8 * toy.colors["skin"]}
    green, blond = {"skin": np.array([0.3, 0.7, 0.3])}, {"hair": np.array([0.9, 0.75, 0.4])}
    red = {"lips": np.array([0.9, 0.0, 0.1])}
    return [toy.draw(change) for change in ({}, aged, green, blond, red, _STATUE, _VAMPIRE)]


def toy_open(seed: int, resolution: int) -> Float[np.ndarray, "edits hues height width 3"]:
    """The scene after each edit of OPEN_ORDER in every hue."""
    from edit3dgs_ns.synthetic.edits import hue_color

    toy = _Toy(seed, resolution)
    parts = {"bright_hair": ("hair",), "face_paint": ("skin",), "bright_statue": ("skin", "hair", "lips")}
    colors = [np.array(hue_color(hue / HUES)) for hue in range(HUES)]
    return np.stack([
        [toy.draw(dict.fromkeys(parts[key], color)) for color in colors] for key in OPEN_ORDER
    ])  # fmt: skip


def toy_named(
    seed: int, resolution: int, key: str, color: tuple[float, float, float] | None
) -> Float[np.ndarray, "height width 3"]:
    """The scene with the part that a key like "hair_green" names in a colour; unchanged where a toy has no such part."""
    toy = _Toy(seed, resolution)
    part = key.partition("_")[0]
    return toy.draw({part: np.array(color)} if color is not None and part in toy.colors else {})


class _Toy:
    def __init__(self, seed: int, resolution: int):
        rng = np.random.default_rng(seed)
        y, x = (np.mgrid[:resolution, :resolution] + 0.5) / resolution
        cx, cy, rx, ry = 0.5 + rng.uniform(-0.08, 0.08, 2).tolist()[0], 0.5, *rng.uniform(0.22, 0.36, 2)
        head = _soft(1.0 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2, resolution)
        hair = head * _soft((cy - 0.35 * ry) - y, resolution)
        lips = head * _soft(0.02 - ((x - cx) ** 2 + (y - cy - 0.5 * ry) ** 2) * 2.0, resolution)
        self._parts = (("skin", head), ("hair", hair), ("lips", lips))
        self._shade = 0.8 + 0.2 * (cx - x)[..., None] / rx
        skin, hair_color = rng.uniform(0.45, 0.9, 3), rng.uniform(0.05, 0.4, 3)
        self.colors = {"skin": skin, "hair": hair_color, "lips": np.array([0.7, 0.35, 0.35])}

    def draw(self, change: dict[str, np.ndarray]) -> np.ndarray:
        """The picture with some parts' colours changed."""
        colors = {**self.colors, **change}
        image = np.ones((*self._shade.shape[:2], 3))
        for part, mask in self._parts:
            image = image * (1.0 - mask[..., None]) + mask[..., None] * colors[part] * self._shade
        return image


def _soft(inside: np.ndarray, resolution: int) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(inside * resolution, -30, 30)))
