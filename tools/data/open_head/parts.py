"""Building the parts of the head as linear functions of MakeHuman's base vertices.

Every output vertex is ``operator @ base_vertices + offset``: clipping, the eyeballs' fit and the teeth's
splines are all linear in the base vertices, so the same operator carries every morph target over to the new
mesh. Metres, FLAME axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.interpolate import CubicSpline


@dataclass
class Part:
    """A piece of the mesh: vertices = ``operator @ base + offset`` (decimetres), own faces and texture."""

    operator: sparse.csr_matrix  # (n, V_base)
    offset: np.ndarray  # (n, 3)
    faces: np.ndarray  # (f, 3) into the n vertices
    uv: np.ndarray  # (u, 2)
    uv_faces: np.ndarray  # (f, 3)
    vertex_tags: dict[str, np.ndarray]  # name -> boolean (n,)
    face_tags: dict[str, np.ndarray]  # name -> boolean (f,)
    eye: tuple[np.ndarray, np.ndarray, np.ndarray] | None = (
        None  # an eyeball's helper, outward and own directions
    )

    def __len__(self) -> int:
        return self.operator.shape[0]


def triangles(quads: np.ndarray) -> np.ndarray:
    """Splits (q, 4) quads along corner 0 to corner 2."""
    return quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


def _compact(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Used indices in ascending order, and the array renumbered to them."""
    used, renumbered = np.unique(indices, return_inverse=True)
    return used, renumbered.reshape(indices.shape)


def selection_part(quads: np.ndarray, uv_quads: np.ndarray, texture: np.ndarray, num_base: int) -> Part:
    """Quads of the base mesh taken over as they are."""
    used, faces = _compact(triangles(quads))
    uv_used, uv_faces = _compact(triangles(uv_quads))
    operator = sparse.csr_matrix(
        (np.ones(len(used)), (np.arange(len(used)), used)), shape=(len(used), num_base)
    )
    return Part(operator, np.zeros((len(used), 3)), faces, texture[uv_used], uv_faces, {}, {})


def clip_part(part: Part, level: np.ndarray) -> Part:
    """Cuts a part along ``level == 0`` and keeps the positive side.

    Args:
        part: the part to cut; its face tags are kept, vertex tags are not.
        level: (n,) signed values at the vertices.

    Returns:
        The part with new vertices on the cut; tag ``cut`` marks them.
    """
    operators, vertices_new = [part.operator], {}
    uvs, uv_new = list(part.uv), {}
    faces, uv_faces, parents = [], [], []
    rows: list[tuple[int, int, float]] = []

    def crossing(i: int, j: int) -> int:
        key = (min(i, j), max(i, j))
        if key not in vertices_new:
            # Away from the ends, so that no sliver triangles come out.
            t = float(np.clip(level[key[0]] / (level[key[0]] - level[key[1]]), 0.12, 0.88))
            vertices_new[key] = len(part) + len(rows)
            rows.append((*key, t))
        return vertices_new[key]

    def crossing_uv(i: int, j: int, corner: tuple[int, int]) -> int:
        swap = corner[0] > corner[1]
        i, j = (j, i) if swap else (i, j)
        if (i, j) not in uv_new:
            t = rows[vertices_new[(min(corner), max(corner))] - len(part)][2]
            uv_new[(i, j)] = len(uvs)
            uvs.append((1 - t) * part.uv[i] + t * part.uv[j])
        return uv_new[(i, j)]

    for parent, (tri, uv_tri) in enumerate(zip(part.faces.tolist(), part.uv_faces.tolist(), strict=True)):
        polygon, uv_polygon = [], []
        for k in range(3):
            i, j = tri[k], tri[(k + 1) % 3]
            a, b = uv_tri[k], uv_tri[(k + 1) % 3]
            if level[i] > 0:
                polygon.append(i)
                uv_polygon.append(a)
            if (level[i] > 0) != (level[j] > 0):
                polygon.append(crossing(i, j))
                uv_polygon.append(crossing_uv(a, b, (i, j)))
        for k in range(1, len(polygon) - 1):
            faces.append([polygon[0], polygon[k], polygon[k + 1]])
            uv_faces.append([uv_polygon[0], uv_polygon[k], uv_polygon[k + 1]])
            parents.append(parent)

    for i, j, t in rows:
        operators.append((1 - t) * part.operator[i] + t * part.operator[j])
    operator = sparse.vstack(operators).tocsr()
    used, new_faces = _compact(np.array(faces))
    uv_used, new_uv_faces = _compact(np.array(uv_faces))
    return Part(
        operator[used],
        np.zeros((len(used), 3)),
        new_faces,
        np.array(uvs)[uv_used],
        new_uv_faces,
        {"cut": used >= len(part)},
        {name: mask[parents] for name, mask in part.face_tags.items()},
    )


def boundary_loop(faces: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The closed loop of boundary edges through the vertices marked in ``members``, in face order."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    present = {(int(a), int(b)) for a, b in edges}
    following = {a: b for a, b in present if (b, a) not in present and members[a] and members[b]}
    loop = [min(following)]
    while (nxt := following[loop[-1]]) != loop[0]:
        loop.append(nxt)
    if len(loop) != len(following):
        raise ValueError(f"the neck's border has {len(following)} edges, but its loop only {len(loop)}")
    return np.array(loop)


def cap_part(skin: Part, loop: np.ndarray, rings: int = 3) -> Part:
    """Closes the bust below: rings that shrink towards the middle of the border."""
    border = skin.operator[loop]
    middle = sparse.csr_matrix(np.asarray(border.mean(0)))
    n = len(loop)
    levels = [border]
    for r in range(1, rings):
        f = r / rings
        levels.append((1 - f) * border + f * sparse.vstack([middle] * n))
    operator = sparse.vstack([*levels, middle]).tocsr()
    k = np.arange(n)
    nxt = (k + 1) % n
    faces = []
    for r in range(rings - 1):
        a, b = r * n, (r + 1) * n
        faces += [np.stack([a + nxt, a + k, b + k], 1), np.stack([a + nxt, b + k, b + nxt], 1)]
    a = (rings - 1) * n
    faces.append(np.stack([a + nxt, a + k, np.full(n, rings * n)], 1))
    faces = np.concatenate(faces)
    angle = 2 * np.pi * k / n
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    uv = np.concatenate([0.5 + 0.05 * (1 - r / rings) * circle for r in range(rings)] + [[[0.5, 0.5]]])
    uv = uv * 0.1 + np.array([0.9, 0.9])
    everywhere = np.ones(operator.shape[0], bool)
    return Part(
        operator,
        np.zeros((operator.shape[0], 3)),
        faces,
        uv,
        faces.copy(),
        {"bust_cap": everywhere},
        {"bust_cap": np.ones(len(faces), bool)},
    )


# Degrees from the gaze axis. The rings at PUPIL and IRIS make the borders of the regions exact.
PUPIL_DEG, IRIS_DEG = 9.0, 23.0
EYE_RINGS_DEG = np.array([4.5, PUPIL_DEG, 13.5, 18, IRIS_DEG, 27, 32, 38, 46, 56, 68, 80, 95, 115, 145])


def eyeball_part(base: np.ndarray, helper: np.ndarray, segments: int = 24) -> Part:
    """A sphere fitted to MakeHuman's eye helper, its pole on the gaze axis (+z); it stays a sphere in every
    shape.

    A displacement field moves the centre by its mean and the radius by its mean radial part.

    Args:
        base: (V, 3) base vertices where the fit is made.
        helper: indices of the helper's vertices.
        segments: vertices per ring.
    """
    n = len(helper)
    centre = base[helper].mean(0)
    outward = base[helper] - centre
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    theta = np.deg2rad(EYE_RINGS_DEG)[:, None]
    phi = 2 * np.pi * np.arange(segments)[None] / segments
    ring = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta) + 0 * phi], -1)
    directions = np.concatenate([[[0, 0, 1.0]], ring.reshape(-1, 3), [[0, 0, -1.0]]])

    # vertex = mean(helper) + direction * mean_i(outward_i . (helper_i - mean)). The second term mixes x, y
    # and z, which ``operator`` cannot: `carry` adds it from ``eye``.
    operator = sparse.csr_matrix(
        (
            np.full(n * len(directions), 1 / n),
            (np.repeat(np.arange(len(directions)), n), np.tile(helper, len(directions))),
        ),
        shape=(len(directions), len(base)),
    )
    rings = len(EYE_RINGS_DEG)
    k, nxt = np.arange(segments), (np.arange(segments) + 1) % segments
    faces = [np.stack([0 * k, 1 + k, 1 + nxt], 1)]
    for r in range(rings - 1):
        a, b = 1 + r * segments, 1 + (r + 1) * segments
        faces += [np.stack([a + k, b + k, b + nxt], 1), np.stack([a + k, b + nxt, a + nxt], 1)]
    a = 1 + (rings - 1) * segments
    faces.append(np.stack([a + k, np.full(segments, a + segments), a + nxt], 1))
    faces = np.concatenate(faces)
    polar = np.arccos(np.clip(directions[:, 2], -1, 1)) / np.pi
    plane = directions[:, :2] / np.maximum(np.linalg.norm(directions[:, :2], axis=1, keepdims=True), 1e-9)
    uv = 0.5 + 0.5 * polar[:, None] * plane
    degrees = polar * 180
    face_degrees = degrees[faces].max(1)
    return Part(
        operator,
        np.zeros((len(directions), 3)),
        faces,
        uv,
        faces.copy(),
        {"iris": degrees <= IRIS_DEG + 0.1, "pupil": degrees <= PUPIL_DEG + 0.1},
        {"iris": face_degrees <= IRIS_DEG + 0.1, "pupil": face_degrees <= PUPIL_DEG + 0.1},
        eye=(helper, outward, directions),
    )


def carry(part: Part, field: np.ndarray, constant: bool = False) -> np.ndarray:
    """Base field (positions or displacements, (V, 3)) -> field of the part (n, 3).

    Args:
        part: the part.
        field: values at the base vertices.
        constant: add the part's constant offset (for positions, not for displacements).
    """
    out = part.operator @ field
    if part.eye is not None:
        helper, outward, directions = part.eye
        centred = field[helper] - field[helper].mean(0)
        out = out + directions * (outward * centred).sum(1).mean()
    return out + part.offset if constant else out


# Crown widths from the midline, in millimetres (textbook averages), scaled to the arch of the base mesh.
TOOTH_WIDTHS_MM = {
    "upper": (8.5, 6.7, 7.6, 7.0, 6.8, 10.0, 9.4),
    "lower": (5.4, 6.0, 6.9, 7.0, 7.1, 10.8, 10.4),
}
# Columns of the base mesh's teeth helpers for x >= 0, from the back to the midline: biting edge, gum, inner
# side.
TEETH_COLUMNS = {
    "upper": {
        "edge": (15080, 15076, 15077, 15078, 15085, 15070, 15071, 15086, 15069),
        "gum": (15068, 15067, 15066, 15065, 15064, 15063, 15062, 15060, 15061),
        "inner": (15093, 15090, 15091, 15092, 15094, 15088, 15089, 15095, 15087),
    },
    "lower": {
        "edge": (15008, 15007, 15006, 15005, 15004, 15003, 15002, 15001, 15010),
        "gum": (15000, 14999, 14998, 14997, 14996, 14995, 14994, 14992, 14993),
        "inner": (15026, 15025, 15024, 15023, 15022, 15021, 15020, 15019, 15027),
    },
}
# Inside each tooth: places across its width, and how far crown and biting edge are drawn back there (0 none,
# 1 full).
ACROSS = np.array([0.0, 0.14, 0.5, 0.86])
GROOVE = np.array([1.0, 0.25, 0.0, 0.25])
GROOVE_DEPTH, NOTCH_DEPTH = 0.0085, 0.0075  # decimetres


def _mirrored_columns(base: np.ndarray, half: tuple[int, ...], group: np.ndarray) -> np.ndarray:
    """Column indices from the subject's left back over the midline to the right back, all within
    ``group``."""
    left = np.array(half)
    mirrored = base[left[:-1]] * [-1, 1, 1]
    nearest = [int(group[np.argmin(((base[group] - m) ** 2).sum(1))]) for m in mirrored]
    return np.concatenate([left, np.array(nearest)[::-1]])


def _spline_operator(
    knots: np.ndarray, at: np.ndarray, columns: np.ndarray, num_base: int
) -> sparse.csr_matrix:
    """Natural cubic spline through control vertices: linear in them, hence a matrix."""
    weights = CubicSpline(knots, np.eye(len(knots)), bc_type="natural")(at)
    rows = np.repeat(np.arange(len(at)), len(columns))
    return sparse.csr_matrix((weights.ravel(), (rows, np.tile(columns, len(at)))), shape=(len(at), num_base))


def teeth_part(base: np.ndarray, group: np.ndarray, row: str) -> Part:
    """Fourteen teeth and their gum along the base mesh's dental arch.

    Args:
        base: (V, 3) base vertices where the arch is measured.
        group: indices of the row's helper vertices.
        row: "upper" or "lower".
    """
    columns = {name: _mirrored_columns(base, half, group) for name, half in TEETH_COLUMNS[row].items()}
    edge = base[columns["edge"]]
    knots = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(edge, axis=0), axis=1))])
    half_widths = np.array(TOOTH_WIDTHS_MM[row])
    widths = np.concatenate([half_widths[::-1], half_widths])
    starts = np.concatenate([[0], np.cumsum(widths)]) / widths.sum() * knots[-1]
    at = np.concatenate([starts[i] + ACROSS * (starts[i + 1] - starts[i]) for i in range(14)] + [starts[-1:]])
    groove = np.concatenate([np.tile(GROOVE, 14), [1.0]])
    lines = {name: _spline_operator(knots, at, c, len(base)) for name, c in columns.items()}
    edge_op, gum_op, inner_op = lines["edge"], lines["gum"], lines["inner"]

    position = {name: op @ base for name, op in lines.items()}
    up = position["gum"] - position["edge"]
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    inward = position["inner"] - position["edge"]
    inward -= (inward * up).sum(1, keepdims=True) * up
    inward /= np.linalg.norm(inward, axis=1, keepdims=True)

    def mix(e: float, g: float, i: float) -> sparse.csr_matrix:
        return (e * edge_op + g * gum_op + i * inner_op).tocsr()

    # Rings from the inner gum over the biting edge to the outer gum: (edge, gum, inner) shares, groove and
    # notch strength.
    profile = [
        ((-0.20, 0.55, 0.65), 0.0, 0.0),
        ((0.35, 0.00, 0.65), -0.3, 0.0),
        ((0.72, 0.00, 0.28), -0.3, 1.0),
        ((1.00, 0.00, 0.00), 0.8, 1.0),
        ((0.86, 0.14, 0.00), 1.0, 0.0),
        ((0.62, 0.38, 0.00), 1.0, 0.0),
        ((0.44, 0.56, 0.00), 0.6, 0.0),
        ((0.00, 1.00, 0.00), 0.1, 0.0),
    ]
    operators, offsets = [], []
    for shares, groove_scale, notch_scale in profile:
        operators.append(mix(*shares))
        offset = GROOVE_DEPTH * groove_scale * groove[:, None] * inward
        offsets.append(offset + NOTCH_DEPTH * notch_scale * (groove**2)[:, None] * up)
    # The gum line bows towards the crown between the teeth.
    offsets[6] = offsets[6] - 0.014 * (groove**2)[:, None] * up + 0.003 * inward * (1 - groove[:, None])
    operator = sparse.vstack(operators).tocsr()
    n = len(at)
    k = np.arange(n - 1)
    faces = []
    for r in range(len(profile) - 1):
        a, b = r * n, (r + 1) * n
        faces += [np.stack([a + k, b + k, b + k + 1], 1), np.stack([a + k, b + k + 1, a + k + 1], 1)]
    faces = np.concatenate(faces)
    offset = np.concatenate(offsets)
    vertices = operator @ base + offset
    normal = np.cross(
        vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]]
    )
    outer = np.arange(len(faces)) >= 4 * 2 * (n - 1)
    if (normal[outer] * -inward[faces[outer, 0] % n]).sum() < 0:
        faces = faces[:, ::-1].copy()
    uv = np.stack([np.tile(at / knots[-1], len(profile)), np.repeat(np.arange(len(profile)) / 7.0, n)], 1)
    gum_vertices = np.zeros(len(offset), bool)
    gum_vertices[:n] = True
    gum_vertices[6 * n :] = True
    gum_faces = gum_vertices[faces].all(1)
    return Part(operator, offset, faces, uv, faces.copy(), {"gums": gum_vertices}, {"gums": gum_faces})
