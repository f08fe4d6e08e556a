"""A person: face shape, hair cut and colours drawn from a seed, and the baked geometry that every image
of them shares.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.synthetic.appearance import Appearance, Color, mix
from edit3dgs_ns.synthetic.baking import BakedIdentity
from edit3dgs_ns.synthetic.canonical import CanonicalHead, canonical_head
from edit3dgs_ns.synthetic.form import PLAIN, Form
from edit3dgs_ns.synthetic.hair import STYLES, HairStyle
from edit3dgs_ns.synthetic.parts.assembly import reformed

_SKINS: tuple[Color, ...] = (
    (0.95, 0.80, 0.73),
    (0.91, 0.74, 0.65),
    (0.86, 0.67, 0.56),
    (0.78, 0.58, 0.45),
    (0.65, 0.46, 0.35),
    (0.50, 0.34, 0.26),
    (0.40, 0.27, 0.21),
)
_HAIRS: tuple[Color, ...] = (
    (0.10, 0.08, 0.07),
    (0.20, 0.13, 0.09),
    (0.33, 0.21, 0.13),
    (0.45, 0.30, 0.18),
    (0.50, 0.24, 0.12),
    (0.70, 0.54, 0.32),
)
_IRISES: tuple[Color, ...] = (
    (0.33, 0.20, 0.10),
    (0.45, 0.31, 0.14),
    (0.36, 0.44, 0.24),
    (0.34, 0.50, 0.62),
    (0.42, 0.50, 0.54),
)
_CLOTHES: tuple[Color, ...] = (
    (0.22, 0.28, 0.40),
    (0.35, 0.36, 0.38),
    (0.16, 0.17, 0.19),
    (0.42, 0.22, 0.22),
    (0.25, 0.38, 0.34),
    (0.72, 0.70, 0.66),
    (0.45, 0.40, 0.30),
)


@dataclass(frozen=True, eq=False)
class Identity:
    """One person.

    Attributes:
        seed: what it was drawn from.
        shape: coefficients of the head's shape directions.
        style: hair cut.
        appearance: colours before any edit.
        form: what an edit adds to the geometry or takes from it.
    """

    seed: int
    shape: Float[np.ndarray, " s"]
    style: HairStyle
    appearance: Appearance
    flame_model_path: Path | None = None
    form: Form = PLAIN
    _cache: dict[Form, BakedIdentity] = field(default_factory=dict, repr=False)
    """Geometry by form: one person's forms share it."""

    @property
    def head(self) -> CanonicalHead:
        """The template this person is a shape of."""
        return canonical_head(self.flame_model_path)

    @property
    def static_offset(self) -> Float[np.ndarray, "v 3"]:
        """Displacement of the scalp to the bulk of the hair, metres."""
        return self.baked.static_offset

    @property
    def baked(self) -> BakedIdentity:
        """Geometry at rest with its hair and ambient occlusion; made on first use."""
        if self.form not in self._cache:
            self._cache[self.form] = self._bake()
        return self._cache[self.form]

    def _bake(self) -> BakedIdentity:
        if self.form != PLAIN:
            return reformed(replace(self, form=PLAIN).baked, self.shape, self.style, self.form, self.seed)
        return BakedIdentity.of_shape(self.head, self.shape, self.style, self.seed)


def random_identity(seed: int, flame_model_path: Path | None = None) -> Identity:
    """A person drawn from a seed: the same seed is the same person.

    Raises:
        ValueError: the head model at the given path lacks the named regions or shape directions
            that painting needs.
    """
    rng = np.random.default_rng([int(seed), 20])
    head = canonical_head(flame_model_path)
    male = bool(rng.random() < 0.5)
    shape = _random_shape(head, male, rng)
    names = (
        ("short", "side_part", "swept_back", "short", "buzz", "curly", "long")
        if male
        else ("long", "bob", "wavy", "long", "curly", "swept_back", "side_part")
    )
    style = STYLES[names[int(rng.choice(len(names), p=_weights(len(names))))]]
    return Identity(int(seed), shape, style, _random_appearance(male, shape, rng), flame_model_path)


def _weights(count: int) -> np.ndarray:
    weight = np.array([4.0, 3.0, 2.5, 2.0, 1.2, 1.2, 0.6])[:count]
    return weight / weight.sum()


def _random_shape(head: CanonicalHead, male: bool, rng: np.random.Generator) -> np.ndarray:
    names = head.assets.shape_names
    if names is None:
        return np.zeros(head.model.num_shape, np.float32)
    spread = {"age": 0.25, "weight": 0.4, "muscle": 0.3}
    value = {name: float(np.clip(rng.normal(0.0, spread.get(name, 0.6)), -1.3, 1.3)) for name in names}
    value["gender_male"] = float(rng.uniform(0.1, 1.1) if male else rng.uniform(-1.6, -0.8))
    # Ancestries: a random mixture, as a difference from the template, which is an even one.
    origin = 1.4 * (rng.dirichlet([0.8, 0.8, 0.8]) - 1 / 3)
    value |= dict(zip(("african", "asian", "caucasian"), (float(o) for o in origin), strict=True))
    return np.array([value[name] for name in names], np.float32)


def _random_appearance(male: bool, shape: np.ndarray, rng: np.random.Generator) -> Appearance:
    place = rng.beta(1.2, 1.5) * (len(_SKINS) - 1)
    lower = int(place)
    skin = mix(_SKINS[lower], _SKINS[min(lower + 1, len(_SKINS) - 1)], place - lower)
    dark = place / (len(_SKINS) - 1)
    hair = _HAIRS[int(rng.integers(0, 2 if dark > 0.62 else (4 if dark > 0.4 else len(_HAIRS))))]
    hair = mix(hair, _HAIRS[int(rng.integers(0, 3))], float(rng.uniform(0, 0.3)))
    iris = _IRISES[int(rng.integers(0, 2 if dark > 0.55 else len(_IRISES)))]
    lips = mix((0.78, 0.46, 0.44), (0.48, 0.28, 0.27), dark)
    lips = mix(lips, (0.76, 0.38, 0.40), 0.0 if male else float(rng.uniform(0.0, 0.5)))
    gray = float(rng.random() < 0.08) * float(rng.uniform(0.2, 0.5))
    return Appearance(
        skin=skin,
        ruddiness=float(rng.uniform(0.35, 0.8)),
        freckles=float(rng.beta(1.0, 2.5)) * (1.0 - 0.6 * dark),
        wrinkles=float(rng.beta(1.2, 6.0)) * 0.45,
        skin_gloss=float(rng.uniform(0.25, 0.5)),
        lips=lips,
        eye_liner=0.30 if male else float(rng.uniform(0.4, 0.7)),
        hair=hair,
        hair_gray=gray,
        hair_gloss=float(rng.uniform(0.4, 0.8)),
        brows=mix(hair, (0.10, 0.08, 0.06), 0.45),
        brow_density=float(rng.uniform(0.7, 1.0)) if male else float(rng.uniform(0.42, 0.68)),
        beard=float(rng.choice([0.0, 0.25, 0.45, 0.85], p=[0.35, 0.3, 0.2, 0.15])) if male else 0.0,
        iris=iris,
        cloth=_CLOTHES[int(rng.integers(len(_CLOTHES)))],
    )
