"""Other cuts than a person's own: long hair that falls onto the shoulders, and none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from edit3dgs_ns.synthetic.baking import BakedIdentity, vertex_normals
from edit3dgs_ns.synthetic.hair import HairMesh, HairStyle, grow
from edit3dgs_ns.synthetic.noise import smoothstep

LONG = HairStyle(
    "falling",
    lift=0.010,
    depth=0.017,
    top=0.31,
    sides=0.27,
    comb="fall",
    gravity=0.85,
    curl=0.12,
    count=2300,
    width=0.0078,
    stand=0.25,
    lowest=-0.180,
)
"""Longer than any cut that people are drawn with."""


# Half axes of the column that the locks fall in, by height over the template's origin; metres.
_HEIGHT = np.array([-0.20, -0.13, -0.08, -0.02, 0.04, 0.09])
_ASIDE = np.array([0.112, 0.108, 0.092, 0.096, 0.104, 0.120])
_BEHIND = np.array([0.118, 0.112, 0.100, 0.106, 0.120, 0.140])
_AXIS = -0.040
"""Depth of the column's axis, metres."""


def long_hair(base: BakedIdentity, seed: int) -> HairMesh:
    """Long locks on a person's head at rest; below the chin they lie more and more on the shoulders."""
    normals = vertex_normals(base.rest, base.head.faces)
    hair = _off_the_face(base, grow(base.head, LONG, base.rest, normals, seed))
    vertices = _over_skin(base, normals, _gathered(hair.vertices))
    return replace(hair, vertices=vertices, resting=smoothstep(-0.060, -0.140, vertices[:, 1]))


def _off_the_face(base: BakedIdentity, hair: HairMesh) -> HairMesh:
    """The locks without those that hang before eyes and cheeks."""
    eyes = base.rest[base.head.assets.vertex_regions["eyes"]].mean(axis=0)
    _, y, z = (hair.vertices - [0.0, eyes[1], eyes[2]]).T
    before = (z > -0.032) & (y < 0.034) & (y > -0.105)
    count = np.unique(hair.lock).size
    hanging = before.reshape(count, -1).any(axis=1)
    kept = ~np.repeat(hanging, len(before) // count)
    return replace(hair, faces=hair.faces[kept[hair.faces[:, 0]]])


def _gathered(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """The locks without strands that stand far off: the column's outside is drawn to its surface."""
    aside, behind = (np.interp(points[:, 1], _HEIGHT, axis) for axis in (_ASIDE, _BEHIND))
    x, z = points[:, 0], points[:, 2] - _AXIS
    distance = np.hypot(x / aside, z / behind)
    wanted = np.where(distance > 0.8, 0.8 + 0.2 * np.tanh((distance - 0.8) / 0.2), distance)
    scale = np.where(z > 0.03, 1.0, wanted / np.maximum(distance, 1e-9))
    return np.stack([x * wanted / np.maximum(distance, 1e-9), points[:, 1], _AXIS + z * scale], axis=1)


def _over_skin(
    base: BakedIdentity, normals: Float[np.ndarray, "v 3"], points: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 3"]:
    """The points, those below the skin or next to it lifted to two millimetres."""
    skin = base.head.assets.vertex_regions["skin"]
    near = skin[cKDTree(base.rest[skin]).query(points)[1]]
    height = ((points - base.rest[near]) * normals[near]).sum(1)
    lift = np.where(points[:, 1] < 0.0, np.maximum(0.002 - height, 0.0), 0.0)
    return points + normals[near] * lift[:, None]


def tucked_hair(base: BakedIdentity) -> HairMesh:
    """The person's own locks, those over the ears pressed to the head, so that the ears stand before them."""
    ears = base.rest[base.head.assets.vertex_regions["ears"]]
    low, high = ears.min(axis=0), ears.max(axis=0)
    x, y, z = base.hair.vertices.T
    away = np.hypot((y - 0.5 * (low[1] + high[1]) - 0.014) / 0.070, (z - 0.5 * (low[2] + high[2])) / 0.046)
    flat = np.minimum(np.abs(x), high[0] - 0.014)
    pressed = np.abs(x) + smoothstep(1.0, 0.6, away) * (flat - np.abs(x))
    return replace(base.hair, vertices=np.stack([np.sign(x) * pressed, y, z], axis=1))


def no_hair() -> HairMesh:
    """No locks."""
    empty, values = np.zeros((0, 3)), np.zeros(0)
    return HairMesh(empty, np.zeros((0, 3), np.int64), empty, empty, values, values, values, values)
