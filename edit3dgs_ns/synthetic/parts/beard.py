"""Beards: locks that grow from the skin of lip, cheeks, chin and jaw, each carried by the place that it grows from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from edit3dgs_ns.synthetic.baking import BakedIdentity, vertex_normals
from edit3dgs_ns.synthetic.beard_region import beard_distance
from edit3dgs_ns.synthetic.canonical import BEARD, SKIN
from edit3dgs_ns.synthetic.hair import ribbons
from edit3dgs_ns.synthetic.lighting import normalize
from edit3dgs_ns.synthetic.noise import fbm, smoothstep
from edit3dgs_ns.synthetic.part import Part, SkinAnchor


@dataclass(frozen=True)
class BeardStyle:
    """A cut; lengths in metres."""

    moustache: float
    cheek: float
    chin: float
    depth: float
    """Thickness of the layer of locks."""
    count: int
    width: float = 0.0042
    stand: float = 0.40
    """How steeply locks leave the skin: 0 flat, 1 upright."""


STYLES = {
    "short": BeardStyle(moustache=0.0075, cheek=0.0065, chin=0.010, depth=0.0050, count=2400, width=0.0032),
    "full": BeardStyle(moustache=0.013, cheek=0.018, chin=0.046, depth=0.013, count=2600, width=0.0046),
}
_STEPS = 4


def grow_beard(base: BakedIdentity, style: BeardStyle, seed: int) -> Part:
    """A beard on a person's head at rest.

    Args:
        seed: of roots and lengths.
    """
    rng = np.random.default_rng([seed, 78])
    normals = vertex_normals(base.rest, base.head.faces)
    corners, weights, template = _roots(base, style.count, rng)
    roots = (base.rest[corners] * weights[..., None]).sum(1)
    root_normal = normalize((normals[corners] * weights[..., None]).sum(1))
    layer = rng.permuted(np.linspace(0.0, 1.0, style.count))
    length = _length(style, template, base.head.landmarks) * rng.uniform(0.75, 1.1, style.count)
    points = _comb_out(base, style, normals, roots, root_normal, template, length, layer)
    mesh = ribbons(points, base.head, base.rest, normals, style.width, rng.random(style.count), layer)
    per_lock = 2 * points.shape[1]
    anchor = SkinAnchor(np.repeat(corners, per_lock, axis=0), np.repeat(weights, per_lock, axis=0))
    return Part(
        material=BEARD,
        label="beard",
        vertices=mesh.vertices,
        faces=mesh.faces,
        normals=mesh.normals,
        tangents=mesh.tangents,
        across=mesh.across,
        along=mesh.along,
        lock=mesh.lock,
        layer=mesh.layer,
        anchor=anchor,
    )


def _roots(base: BakedIdentity, count: int, rng: np.random.Generator):
    """Places spread evenly over the beard's area: corners and barycentric weights of their faces, and the template's points."""
    head = base.head
    rest = head.assets.v_template.astype(np.float64)
    faces = head.faces[head.face_material == SKIN]
    faces = faces[beard_distance(rest[faces].mean(axis=1), head.landmarks) > -0.005]
    a, b, c = (rest[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    tries = 4 * count
    steps = (np.arange(tries) + rng.random(tries)) / tries * area.sum()
    chosen = rng.permutation(np.searchsorted(np.cumsum(area), steps).clip(0, len(faces) - 1))
    u, v = rng.random((2, tries))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    weights = np.stack([1 - u - v, u, v], axis=1)
    place = (rest[faces[chosen]] * weights[..., None]).sum(1)
    inside = np.flatnonzero(beard_distance(place, head.landmarks) > 0.0004 * rng.standard_normal(tries))
    kept = np.resize(inside, count)  # on a small area some are used twice
    return faces[chosen][kept], weights[kept], place[kept]


def _length(style: BeardStyle, template: np.ndarray, landmarks) -> np.ndarray:
    """Length at each root: longest at the chin, short towards the upper edge."""
    x, y = np.abs(template[:, 0]), template[:, 1]
    chin = smoothstep(0.052, 0.012, x) * smoothstep(landmarks.mouth[1] - 0.008, landmarks.mouth[1] - 0.024, y)
    length = style.cheek + (style.chin - style.cheek) * chin
    lip = smoothstep(0.030, 0.024, x) * smoothstep(landmarks.mouth[1] - 0.004, landmarks.mouth[1] + 0.004, y)
    length = length + (style.moustache - length) * lip
    edge = smoothstep(0.0, 0.016, beard_distance(template, landmarks))
    return length * np.where(lip > 0.5, 1.0, 0.40 + 0.60 * edge)


def _comb(template: np.ndarray, landmarks) -> np.ndarray:
    """Direction each lock is combed in: down, a little to the front at the chin, sideways under the nose."""
    x, y, z = template.T
    one = np.ones_like(x)
    down = np.stack([-1.2 * x, -one, 0.10 + 1.5 * np.clip(z, 0.0, 0.06)], axis=1)
    aside = np.stack([np.sign(x) * (0.55 + 25.0 * np.abs(x)), -0.55 * one, 0.0 * one], axis=1)
    lip = smoothstep(0.030, 0.024, np.abs(x)) * smoothstep(
        landmarks.mouth[1] - 0.004, landmarks.mouth[1] + 0.004, y
    )
    return normalize(down + (aside - down) * lip[:, None])


def _comb_out(
    base, style, normals, roots, root_normal, template, length, layer
) -> Float[np.ndarray, "l r 3"]:
    """Points of each lock: out of the skin, then along the comb, never nearer to the skin than its layer."""
    head = base.head
    skin = head.assets.vertex_regions["skin"]
    skin = skin[head.assets.v_template[skin, 2] > -0.06]
    tree = cKDTree(base.rest[skin])
    comb = _comb(template, head.landmarks)
    comb = normalize(comb + 0.35 * np.stack([fbm(template, 90.0, 1, seed=92 + k) for k in range(3)], axis=1))
    tangent = normalize(comb - (comb * root_normal).sum(1, keepdims=True) * root_normal)
    direction = normalize((1 - style.stand) * tangent + style.stand * root_normal)
    # Short locks lie nearer to the skin than the layer of the long ones.
    thickness = np.minimum(style.depth, 0.55 * length)
    place, points = roots, [roots - 0.0008 * root_normal]
    for k in range(_STEPS):
        fraction = (k + 1) / _STEPS
        place = place + direction * (length / _STEPS)[:, None]
        near = skin[tree.query(place)[1]]
        height = ((place - base.rest[near]) * normals[near]).sum(1)
        wanted = 0.0008 + (0.10 + 0.90 * layer) * thickness * min(1.0, 2.0 * fraction)
        place = place + normals[near] * np.maximum(wanted - height, 0.0)[:, None]
        points.append(place)
        direction = normalize(0.5 * direction + 0.5 * comb)
    return np.stack(points, axis=1)
