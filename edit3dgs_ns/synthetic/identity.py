"""A person: face shape, hair cut and colours drawn from a seed, and the baked geometry that every image
of them shares.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from edit3dgs_ns.capture.rays import build_intersector
from edit3dgs_ns.synthetic.appearance import Appearance, Color, mix
from edit3dgs_ns.synthetic.canonical import (
    HAIR,
    LABELS,
    CanonicalHead,
    canonical_head,
)
from edit3dgs_ns.synthetic.hair import STYLES, HairMesh, HairStyle, grow, scalp_lift
from edit3dgs_ns.synthetic.lighting import lobe_directions, normalize

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
    """

    seed: int
    shape: Float[np.ndarray, " s"]
    style: HairStyle
    appearance: Appearance
    flame_model_path: Path | None = None
    _cache: dict = field(default_factory=dict, repr=False)

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
        if "baked" not in self._cache:
            self._cache["baked"] = BakedIdentity(self)
        return self._cache["baked"]


class BakedIdentity:
    """Rest geometry of one identity: computed once, used for every frame."""

    def __init__(self, identity: Identity):
        self.head = head = identity.head
        shape = torch.from_numpy(np.asarray(identity.shape, np.float32))
        bare = head.model.shaped(shape, None).v_shaped.numpy().astype(np.float64)
        normals = vertex_normals(bare, head.faces)
        self.static_offset = scalp_lift(head, identity.style, bare, normals).astype(np.float32)
        self.shaped = head.model.shaped(shape, torch.from_numpy(self.static_offset))
        self.rest = self.shaped.v_shaped.numpy().astype(np.float64)
        self.hair: HairMesh = grow(
            head, identity.style, self.rest, vertex_normals(self.rest, head.faces), identity.seed
        )
        self.depth = identity.style.depth

    @cached_property
    def faces(self) -> Int[np.ndarray, "f 3"]:
        """Faces of head and hair together."""
        return np.concatenate([self.head.faces, self.hair.faces + len(self.rest)]).astype(np.int32)

    @cached_property
    def face_material(self) -> Int[np.ndarray, " f"]:
        """Material of each face."""
        return np.concatenate([self.head.face_material, np.full(len(self.hair.faces), HAIR)]).astype(np.int32)

    @cached_property
    def face_label(self) -> Int[np.ndarray, " f"]:
        """Label of each face."""
        return np.concatenate([self.head.face_label, np.full(len(self.hair.faces), LABELS["hair"])]).astype(
            np.int32
        )

    @cached_property
    def visibility(self) -> Float[np.ndarray, "v 13"]:
        """Open share of the hemisphere, then visibility towards each of 12 lobes, for every head vertex at
        rest.
        """
        return bake_visibility(self.head, self.rest, self.faces, self.hair.vertices)


def vertex_normals(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "v 3"]:
    """Area-weighted unit normals."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    face_normal = np.cross(b - a, c - a)
    total = np.empty_like(vertices)
    for axis in range(3):
        total[:, axis] = np.bincount(
            faces.ravel(), np.repeat(face_normal[:, axis], 3), minlength=len(vertices)
        )
    return normalize(total)


def bake_visibility(head, rest, faces, hair_vertices, rays: int = 40) -> Float[np.ndarray, "v 13"]:
    """Cast a fixed fan of directions from every head vertex against the head with its hair (eyes open,
    mouth closed).
    """
    normals = vertex_normals(rest, head.faces)
    directions = _sphere(2 * rays)
    facing = normals @ directions.T
    scene = build_intersector(np.concatenate([rest, hair_vertices]), faces)
    vertex, ray = np.nonzero(facing > 0.08)
    origins = rest[vertex] + 0.0012 * normals[vertex]
    hit = scene.run(origins.astype(np.float32), directions[ray].astype(np.float32), output=1)
    # Something far away shades less than something near: fade between 3 and 12 cm.
    open_ray = np.where(hit["primID"] >= 0, np.clip((hit["tfar"] - 0.03) / 0.09, 0.0, 1.0), 1.0)
    weight = facing[vertex, ray]
    count = len(rest)
    ambient = np.bincount(vertex, open_ray * weight, count) / np.maximum(
        np.bincount(vertex, weight, count), 1e-6
    )
    lobes = lobe_directions().astype(np.float64)
    sharp = np.exp(4.0 * (directions[ray] @ lobes.T - 1.0)) * weight[:, None]
    seen = np.stack([np.bincount(vertex, sharp[:, k] * open_ray, count) for k in range(12)], axis=1)
    total = np.stack([np.bincount(vertex, sharp[:, k], count) for k in range(12)], axis=1)
    # Lobes below the horizon hold no rays; the wrapped diffuse term ends there anyway.
    lobe = (seen + 0.05 * ambient[:, None]) / (total + 0.05)
    baked = np.concatenate([ambient[:, None], lobe], axis=1)
    for _ in range(2):
        baked = 0.5 * baked + 0.5 * (head.neighbours @ baked)
    return np.clip(baked, 0.0, 1.0).astype(np.float32)


def _sphere(count: int) -> np.ndarray:
    """Directions spread evenly over the sphere (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * index / count), np.pi * (1 + 5**0.5) * index
    return np.stack([np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], axis=1)


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
