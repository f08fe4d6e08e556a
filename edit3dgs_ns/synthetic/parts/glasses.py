"""Glasses: two rims with a bridge over the nose, temples that go back to the ears, and dark lenses if wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from edit3dgs_ns.capture.rays import build_intersector
from edit3dgs_ns.synthetic.baking import BakedIdentity, vertex_normals
from edit3dgs_ns.synthetic.canonical import FRAME, LABELS, LENS, SKIN
from edit3dgs_ns.synthetic.lighting import normalize
from edit3dgs_ns.synthetic.part import Part

_WRAP = 2.0
"""Curvature of the front: a place x metres aside lies _WRAP x^2 behind the middle."""
_HALF_HEIGHT = 0.0180
_INNER = 0.0095
"""Distance of the rims' inner edges from the middle, metres."""
_RIM, _RIM_DEPTH = 0.0017, 0.0018
"""Half width and half depth of the rims, metres."""
_CLEARANCE = 0.0030
"""Least distance of a rim's middle from skin that moves, metres."""
_CLOSEST = (
    ("cheekSquint", "mouthSmile"),
    ("browDown", "eyeSquint", "noseSneer"),
    ("browOuterUp", "browInnerUp", "eyeWide"),
)
"""Expressions that bring the skin near the glasses."""

Mesh = tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]


def wear_glasses(base: BakedIdentity, dark: bool) -> tuple[Part, ...]:
    """Frames on a person's head at rest, and lenses if they are dark (clear ones show nothing)."""
    outline = _outline(base)
    left = [_rim(outline), _temple(base, outline)]
    meshes = [*left, *(_mirrored(mesh) for mesh in left), _bridge(outline)]
    parts = [_part(FRAME, _joined(meshes))]
    if dark:
        lens = _lens(outline)
        parts.append(_part(LENS, _joined([lens, _mirrored(lens)])))
    return tuple(parts)


def _outline(base: BakedIdentity, count: int = 56) -> Float[np.ndarray, "n 3"]:
    """The middle of the left rim, counter-clockwise from its outer end as seen from the front: a rounded rectangle
    before the eye, as near to the face as lids, brows and cheeks allow in every expression.
    """
    eye = base.rest[base.head.assets.vertex_regions["eye_left"]]
    eye = (eye.min(axis=0) + eye.max(axis=0)) / 2
    outer = eye[0] + 0.0265
    middle, half = np.array([(outer + _INNER) / 2, eye[1] - 0.0035]), (outer - _INNER) / 2
    angle = np.linspace(0.0, 2 * np.pi, count, endpoint=False)
    power = 2.0 / 2.9
    x = middle[0] + half * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    y = middle[1] + _HALF_HEIGHT * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    # Towards the nose's wings the rims give way.
    below = np.clip((middle[1] - y) / _HALF_HEIGHT, 0.0, 1.0)
    x = x + 0.0050 * below * np.clip((middle[0] - x) / half, 0.0, 1.0)
    x, y = _evenly(x, y)
    skin = _foremost_skin(base)
    near = cKDTree(np.stack([x, y], axis=1)).query(skin[:, :2])[0] < 0.0034
    inside = (((skin[:, :2] - middle) / [0.85 * half, 0.85 * _HALF_HEIGHT]) ** 2).sum(axis=1) < 1.0
    need = (skin[near | inside, 2] + _WRAP * skin[near | inside, 0] ** 2).max() + _CLEARANCE
    return np.stack([x, y, need - _WRAP * x**2], axis=1)


def _evenly(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The closed curve through the points, with points at even distances."""
    closed = np.stack([np.append(x, x[0]), np.append(y, y[0])], axis=1)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    wanted = np.linspace(0.0, length[-1], len(x), endpoint=False)
    return np.interp(wanted, length, closed[:, 0]), np.interp(wanted, length, closed[:, 1])


def _foremost_skin(base: BakedIdentity) -> Float[np.ndarray, "n 3"]:
    """Skin of the left half of the face at rest and in the expressions that bring it forward; the nose's ridge left out."""
    assets = base.head.assets
    skin = np.intersect1d(assets.vertex_regions["skin"], assets.vertex_regions["face"])
    skin = np.union1d(skin, assets.vertex_regions["nose"])
    skin = skin[base.rest[skin, 0] > _INNER - 0.0015]
    places = [base.rest[skin]]
    names = assets.expression_names or ()
    for group in _CLOSEST:
        columns = [
            k for k, name in enumerate(names) if name.removesuffix("Left").removesuffix("Right") in group
        ]
        places.append(base.rest[skin] + assets.exprdirs[skin][:, :, columns].sum(axis=2))
    return np.concatenate(places)


def _rim(outline: Float[np.ndarray, "n 3"]) -> Mesh:
    """A tube along the outline, thicker above."""
    height = (outline[:, 1] - outline[:, 1].mean()) / _HALF_HEIGHT
    width = _RIM * (1.0 + 0.30 * np.clip(height, -0.5, 1.0))
    return _tube(outline, width, np.full(len(outline), _RIM_DEPTH), np.array([0.0, 0.0, 1.0]), closed=True)


def _bridge(outline: Float[np.ndarray, "n 3"]) -> Mesh:
    """From rim to rim over the nose."""
    start = outline[np.argmin(outline[:, 0] - 0.10 * outline[:, 1])]
    x = np.linspace(start[0], -start[0], 13)
    arch = 1.0 - (x / start[0]) ** 2
    path = np.stack([x, start[1] + 0.0012 * arch, start[2] + 0.0022 * arch], axis=1)
    return _tube(path, np.full(13, 0.0017), np.full(13, 0.0016), np.array([0.0, 0.0, 1.0]))


def _temple(base: BakedIdentity, outline: Float[np.ndarray, "n 3"]) -> Mesh:
    """From the rim's outer end along the side of the head, over the ear's root and down behind it."""
    ears = base.rest[base.head.assets.vertex_regions["ears"]]
    ears = ears[ears[:, 0] > 0]
    top, front, back = ears[:, 1].max() + 0.0022, ears[:, 2].max() - 0.004, ears[:, 2].min()
    start = outline[np.argmax(outline[:, 0] + 0.35 * outline[:, 1])]
    z = np.concatenate(
        [[start[2]], np.linspace(start[2] - 0.006, front, 12), np.linspace(front, back, 7)[1:]]
    )
    y = np.where(z > front, start[1] + (top - start[1]) * ((start[2] - z) / (start[2] - front)) ** 1.3, top)
    # Behind the ear it bends down along the head.
    turn = np.linspace(0.0, 1.0, 7)[1:]
    z = np.concatenate([z, back - 0.010 * np.sin(turn * np.pi / 2)])
    y = np.concatenate([y, top - 0.026 * turn**1.5])
    skin = _side_of_head(base, y, z) + 0.0026
    line = np.interp(-z, [-start[2], -front, -back], [start[0] + 0.0035, skin[12], skin[18]])
    x = gaussian_filter1d(np.maximum(skin, line), 1.0, mode="nearest")
    x = np.maximum(x, skin)
    x[0] = start[0]
    path = np.stack([x, y, z], axis=1)
    count = len(path)
    return _tube(path, np.full(count, 0.0019), np.full(count, 0.0012), np.array([1.0, 0.0, 0.0]))


def _side_of_head(base: BakedIdentity, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """How far the left side of the head, without the ear, reaches out at some heights and depths."""
    head = base.head
    faces = head.faces[(head.face_material == SKIN) & (head.face_label != LABELS["ears"])]
    origin = np.stack([np.full_like(y, 0.3), y, z], axis=1).astype(np.float32)
    direction = np.broadcast_to(np.array([-1.0, 0.0, 0.0], np.float32), origin.shape)
    hit = build_intersector(base.rest, faces).run(origin, np.ascontiguousarray(direction), output=1)
    return np.where(hit["primID"] >= 0, 0.3 - hit["tfar"], 0.0)


def _lens(outline: Float[np.ndarray, "n 3"], rings: int = 4) -> Mesh:
    """A disc inside the rim that bulges to the front."""
    centre = outline.mean(axis=0)
    share = np.linspace(1.0, 0.0, rings + 1)[:, None, None]
    points = centre + share * (outline - centre)
    points[..., 2] += 0.0012 * (1.0 - share[..., 0] ** 2)
    count = len(outline)
    index = np.arange((rings + 1) * count).reshape(rings + 1, count)
    return points.reshape(-1, 3), _quads(index, closed=True)


def _tube(
    path: Float[np.ndarray, "n 3"],
    width: Float[np.ndarray, " n"],
    depth: Float[np.ndarray, " n"],
    normal: Float[np.ndarray, " 3"],
    closed: bool = False,
    sides: int = 10,
) -> Mesh:
    """An elliptic tube: `depth` is its half axis along `normal`, `width` the one across; open ends are capped."""
    ahead = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0) if closed else np.gradient(path, axis=0)
    ahead = normalize(ahead)
    second = normalize(normal - (ahead @ normal)[:, None] * ahead)
    first = np.cross(ahead, second)
    angle = np.arange(sides) / sides * 2 * np.pi
    ring = (width[:, None] * np.cos(angle))[..., None] * first[:, None] + (depth[:, None] * np.sin(angle))[
        ..., None
    ] * second[:, None]
    points = path[:, None] + ring
    if not closed:
        points = np.concatenate(
            [np.repeat(path[:1, None], sides, axis=1), points, np.repeat(path[-1:, None], sides, axis=1)]
        )
    index = np.arange(points[..., 0].size).reshape(points.shape[:2])
    if closed:
        index = np.concatenate([index, index[:1]])
    return points.reshape(-1, 3), _quads(index, closed=True)


def _quads(index: Int[np.ndarray, "rows columns"], closed: bool) -> Int[np.ndarray, "m 3"]:
    """Two triangles for each cell of a grid; `closed` joins the last column with the first."""
    if closed:
        index = np.concatenate([index, index[:, :1]], axis=1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)])


def _mirrored(mesh: Mesh) -> Mesh:
    return mesh[0] * [-1.0, 1.0, 1.0], mesh[1][:, ::-1]


def _joined(meshes: Sequence[Mesh]) -> Mesh:
    first = np.cumsum([0, *(len(points) for points, _ in meshes)])
    return (
        np.concatenate([points for points, _ in meshes]),
        np.concatenate([faces + start for (_, faces), start in zip(meshes, first, strict=False)]),
    )


def _part(material: int, mesh: Mesh) -> Part:
    points, faces = mesh
    zero = np.zeros(len(points))
    return Part(
        material=material,
        label="glasses",
        vertices=points,
        faces=faces,
        normals=vertex_normals(points, faces),
        tangents=np.zeros_like(points),
        across=zero,
        along=zero,
        lock=zero,
        layer=zero,
        # Thin: a fan of few rays from each vertex would make blotches of it.
        shades=False,
    )
