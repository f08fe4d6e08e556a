"""Hair: a volume that the scalp is lifted to, and locks combed over it.

The lift goes into the identity's static offset, as a tracker's fit to a real person would have it. Each
lock is a narrow ribbon grown from a root step by step (comb, gravity, curl, staying outside the head); its
triangles carry place along and across the lock, from which the shading draws strands. Locks move rigidly
with the skull.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from edit3dgs_ns.synthetic.canonical import CanonicalHead, hairline
from edit3dgs_ns.synthetic.lighting import normalize
from edit3dgs_ns.synthetic.noise import fbm, smoothstep


@dataclass(frozen=True)
class HairStyle:
    """A cut. Lengths in metres."""

    name: str
    lift: float
    """How far the scalp's surface is raised."""
    depth: float
    """Thickness of the layer of locks above it."""
    top: float
    """Length of the locks on top of the head."""
    sides: float
    """Length at the sides and at the back."""
    comb: str
    """"forward", "side", "back", "part", or "fall": parted in front, straight down behind."""
    gravity: float = 0.0
    curl: float = 0.0
    count: int = 1300
    width: float = 0.0065
    stand: float = 0.35
    """How steeply locks leave the scalp: 0 flat, 1 upright."""
    lowest: float = -1.0
    """Locks end at this height."""


STYLES: dict[str, HairStyle] = {
    style.name: style
    for style in (
        HairStyle("buzz", 0.002, 0.004, 0.010, 0.007, "forward", count=2200, width=0.004, stand=0.55),
        HairStyle("short", 0.007, 0.012, 0.034, 0.020, "forward", count=1900, width=0.0055, stand=0.45),
        HairStyle(
            "side_part", 0.010, 0.014, 0.060, 0.024, "side", gravity=0.10, count=1900, width=0.006, stand=0.30
        ),
        HairStyle(
            "swept_back",
            0.010,
            0.012,
            0.080,
            0.045,
            "back",
            gravity=0.08,
            count=1600,
            width=0.006,
            stand=0.30,
        ),
        HairStyle(
            "curly", 0.014, 0.022, 0.050, 0.040, "forward", curl=0.9, count=2000, width=0.0075, stand=0.85
        ),
        HairStyle(
            "bob",
            0.011,
            0.014,
            0.16,
            0.12,
            "part",
            gravity=0.75,
            count=1700,
            width=0.007,
            stand=0.25,
            lowest=-0.075,
        ),
        HairStyle(
            "long",
            0.010,
            0.015,
            0.27,
            0.24,
            "part",
            gravity=0.85,
            curl=0.10,
            count=1800,
            width=0.0075,
            stand=0.25,
            lowest=-0.16,
        ),
        HairStyle(
            "wavy",
            0.012,
            0.020,
            0.22,
            0.18,
            "part",
            gravity=0.65,
            curl=0.45,
            count=1800,
            width=0.0075,
            stand=0.3,
            lowest=-0.13,
        ),
    )
}


@dataclass(frozen=True)
class HairMesh:
    """Ribbons on the identity's head at rest."""

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    normals: Float[np.ndarray, "n 3"]
    tangents: Float[np.ndarray, "n 3"]
    along: Float[np.ndarray, " n"]
    """0 root, 1 tip."""
    across: Float[np.ndarray, " n"]
    """-1 and 1 at the two edges."""
    lock: Float[np.ndarray, " n"]
    """A number in [0, 1) of each lock's own."""
    layer: Float[np.ndarray, " n"]
    """0 deepest, 1 outermost."""
    resting: Float[np.ndarray, " n"] | None = None
    """Share of each vertex that lies on the shoulders and stays there when the head turns; None: all is rigid with the skull."""


def scalp_lift(
    head: CanonicalHead,
    style: HairStyle,
    vertices: Float[np.ndarray, "v 3"],
    normals: Float[np.ndarray, "v 3"],
) -> Float[np.ndarray, "v 3"]:
    """Displacement that raises the scalp to the bulk of the hair, fading out towards the hairline."""
    rest = head.assets.v_template.astype(np.float64)
    skin = np.zeros(len(rest), bool)
    skin[head.assets.vertex_regions["skin"]] = True
    distance = np.where(skin, hairline(rest, head.landmarks), -1.0)
    amount = style.lift * smoothstep(0.0, 0.030, distance)
    for _ in range(2):
        amount = np.where(distance > -0.01, 0.5 * amount + 0.5 * (head.neighbours @ amount), amount)
    return normals * amount[:, None]


def grow(
    head: CanonicalHead,
    style: HairStyle,
    vertices: Float[np.ndarray, "v 3"],
    normals: Float[np.ndarray, "v 3"],
    seed: int,
) -> HairMesh:
    """Grow the locks of a style on an identity's head at rest (its scalp already lifted)."""
    rng = np.random.default_rng([seed, 77])
    roots, root_rest, root_normal = _roots(head, style.count, vertices, normals, rng)
    layer = rng.permuted(np.linspace(0.0, 1.0, style.count))
    order_lock = rng.random(style.count)
    topness = smoothstep(0.045, 0.085, root_rest[:, 1])
    length = (style.sides + (style.top - style.sides) * topness) * rng.uniform(0.72, 1.12, style.count)
    comb = _comb(style, root_rest, rng)
    segments = 6 if style.top < 0.1 else 11
    points = _integrate(
        head, style, vertices, normals, roots, root_normal, comb, length, layer, segments, seed
    )
    return ribbons(points, head, vertices, normals, style.width, order_lock, layer)


def _roots(head, count, vertices, normals, rng):
    """Roots spread evenly over the scalp's area, drawn without clumps (a random offset per area step)."""
    rest = head.assets.v_template.astype(np.float64)
    faces = head.faces[head.face_material == 0]
    centre = rest[faces].mean(axis=1)
    faces = faces[hairline(centre, head.landmarks) > -0.004]
    a, b, c = (rest[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    steps = (np.arange(4 * count) + rng.random(4 * count)) / (4 * count) * area.sum()
    chosen = rng.permutation(np.searchsorted(np.cumsum(area), steps).clip(0, len(faces) - 1))
    u, v = rng.random((2, len(chosen)))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    weights = np.stack([1 - u - v, u, v], axis=1)

    def blend(values):
        return np.einsum("nk,nkc->nc", weights, values[faces[chosen]])

    place = blend(rest)
    jitter = 0.003 * rng.standard_normal(len(place))
    kept = np.flatnonzero(hairline(place, head.landmarks) + jitter > 0.0015)[:count]
    while len(kept) < count:  # few candidates on a small scalp: use some twice
        kept = np.concatenate([kept, kept])[:count]
    return blend(vertices)[kept], place[kept], normalize(blend(normals)[kept])


def _comb(style: HairStyle, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The direction that each lock is combed in (it need not lie in the surface yet)."""
    x, z = rest[:, 0], rest[:, 2]
    one, zero = np.ones_like(x), np.zeros_like(x)
    if style.comb == "forward":
        crown = np.stack([x * 6.0, -0.25 * one, z + 0.09], axis=1)
        flow = normalize(crown) * [0.6, 1.0, 1.0]
        sides = np.stack([zero, -1.0 * one, -0.25 * one], axis=1)
        flow = np.where((rest[:, 1] < 0.085)[:, None], sides, flow)
    elif style.comb == "side":
        flow = np.stack([-0.9 * one, 0.10 * one, -0.25 * one], axis=1)
        down = np.stack([np.sign(x) * 0.15, -1.0 * one, -0.35 * one], axis=1)
        flow = np.where((x > 0.030)[:, None] | (rest[:, 1] < 0.070)[:, None], down, flow)
    elif style.comb == "back":
        flow = np.stack([x * 3.0, -0.20 * one, -1.0 * one], axis=1)
    elif style.comb == "fall":
        front = smoothstep(-0.10, -0.02, z)
        flow = np.stack(
            [np.sign(x - 0.004) * front + 6.0 * x * (1 - front), -0.45 * one, -0.45 * front - 0.30], axis=1
        )
    else:
        side = np.sign(x - 0.008)
        front = smoothstep(-0.02, 0.03, z)
        flow = np.stack([side * 1.0, -0.35 * one, -0.55 * front - 0.15], axis=1)
    return normalize(flow + 0.16 * rng.standard_normal(flow.shape))


def _integrate(head, style, vertices, normals, roots, root_normal, comb, length, layer, segments, seed):
    """Points of each lock, (locks, segments + 1, 3)."""
    skin = head.assets.vertex_regions["skin"]
    tree = cKDTree(vertices[skin])
    rest = head.assets.v_template.astype(np.float64)
    step = length / segments
    points = [roots - 0.001 * root_normal]
    tangent = comb - (comb * root_normal).sum(1, keepdims=True) * root_normal
    direction = normalize(normalize(tangent) * (1 - style.stand) + root_normal * style.stand)
    place = roots
    phase = layer * 40.0
    for k in range(segments):
        fraction = (k + 1) / segments
        place = place + direction * step[:, None]
        near = skin[tree.query(place)[1]]
        normal = normals[near]
        height = ((place - vertices[near]) * normal).sum(1)
        # A lock rises quickly to its layer and dips a little at the tip.
        wanted = (0.15 + 0.85 * layer) * style.depth * smoothstep(
            0.0, 0.30, np.full_like(layer, fraction)
        ) + 0.0012
        wanted = wanted * (1.0 - 0.25 * fraction * (style.top < 0.1))
        below = np.maximum(wanted - height, 0.0)
        hair_here = smoothstep(-0.012, 0.012, hairline(rest[near], head.landmarks))
        above = (
            np.maximum(height - wanted - 0.004, 0.0)
            * 0.55
            * (hair_here if style.gravity else style.stand < 0.6)
        )
        place = place + normal * (below - above)[:, None]
        if style.gravity >= 0.3:
            place = _keep_off_face(head, place)
        points.append(place)
        tangent = comb - (comb * normal).sum(1, keepdims=True) * normal
        # Hanging hair forgets the comb and falls, a little inwards at the neck.
        hanging = float(smoothstep(0.05, 0.55, np.array(fraction))) * style.gravity
        inward = -7.0 * np.clip(place[:, :1], -0.1, 0.1) * (place[:, 1:2] < 0.0)
        fall = np.concatenate([inward, -2.2 * np.ones_like(inward), 0.0 * inward], axis=1)
        pull = (1.0 - min(1.0, 1.15 * hanging)) * normalize(tangent) + hanging * fall
        if style.curl:
            wave = np.stack(
                [fbm(place + phase[:, None] * 0.01, 55.0, 1, seed + 5 + i) for i in range(3)], axis=1
            )
            pull = pull + 2.0 * style.curl * wave
        direction = normalize(0.45 * direction + 0.55 * normalize(pull))
        if style.gravity < 0.3:  # cropped hair ends soon after it leaves the scalp
            step = step * smoothstep(-0.024, -0.004, hairline(rest[near], head.landmarks))
        if style.lowest > -1:
            step = step * smoothstep(style.lowest - 0.01, style.lowest + 0.03, place[:, 1])
    return np.stack(points, axis=1)


def _keep_off_face(head: CanonicalHead, place: np.ndarray) -> np.ndarray:
    """Push locks that would hang before the eyes and cheeks out to the sides."""
    eye = head.landmarks.eye
    half = 0.058 + 0.10 * np.clip(eye[1] + 0.040 - place[:, 1], 0.0, 0.02)
    in_front = (place[:, 2] > eye[2] - 0.045) & (place[:, 1] < eye[1] + 0.050) & (np.abs(place[:, 0]) < half)
    x = np.where(
        in_front,
        np.where(place[:, 0] >= 0, 1.0, -1.0) * (0.3 * np.abs(place[:, 0]) + 0.7 * half),
        place[:, 0],
    )
    z = np.where(in_front, place[:, 2] - 0.006, place[:, 2])
    return np.stack([x, place[:, 1], z], axis=1)


def ribbons(
    points: Float[np.ndarray, "locks rows 3"],
    head: CanonicalHead,
    vertices: Float[np.ndarray, "v 3"],
    normals: Float[np.ndarray, "v 3"],
    width: float,
    lock: Float[np.ndarray, " locks"],
    layer: Float[np.ndarray, " locks"],
) -> HairMesh:
    """Locks through rows of points: two triangles for each step.

    Args:
        vertices, normals: of the head at rest.
        width: of a lock, metres.
        lock, layer: see `HairMesh`.

    Returns:
        The vertices of a lock follow each other, two for each row.
    """
    locks, rows, _ = points.shape
    skin = head.assets.vertex_regions["skin"]
    near = skin[cKDTree(vertices[skin]).query(points.reshape(-1, 3))[1]].reshape(locks, rows)
    centre = vertices[head.skull_vertices].mean(axis=0) - [0.0, 0.05, 0.0]
    outward = normalize(points - centre)
    normal = normalize(normals[near] + 0.9 * outward)
    tangent = normalize(np.gradient(points, axis=1))
    normal = normalize(normal - (normal * tangent).sum(-1, keepdims=True) * tangent * 0.6)
    side = normalize(np.cross(tangent, normal))
    along = np.linspace(0, 1, rows)
    half = 0.5 * width * (1.0 - 0.85 * along**3) * smoothstep(-0.3, 0.15, along)
    half = half[None, :, None] * (0.7 + 0.6 * lock)[:, None, None]
    # The edges bend inward like a lock's rounded cross-section; normals fan out accordingly.
    vertex = np.stack(
        [points - side * half - normal * 0.25 * half, points + side * half - normal * 0.25 * half], axis=2
    )
    fanned = np.stack([normalize(normal - 0.45 * side), normalize(normal + 0.45 * side)], axis=2)
    index = np.arange(locks * rows * 2).reshape(locks, rows, 2)
    a, b, c, d = index[:, :-1, 0], index[:, :-1, 1], index[:, 1:, 0], index[:, 1:, 1]
    faces = np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)])

    def spread(values):
        return np.broadcast_to(values, (locks, rows, 2)).reshape(-1)

    return HairMesh(
        vertices=vertex.reshape(-1, 3),
        faces=faces,
        normals=fanned.reshape(-1, 3),
        tangents=np.repeat(tangent[:, :, None], 2, axis=2).reshape(-1, 3),
        along=spread(along[None, :, None]),
        across=spread(np.array([-1.0, 1.0])[None, None]),
        lock=spread(lock[:, None, None]),
        layer=spread(layer[:, None, None]),
    )
