"""Registers the open head to the template of another head model, FLAME's for example, and carries points over.

The open head's own shape space goes first: it knows what noses and chins are, so that a point of the nose comes to lie on the nose.
What is left is closed by a smooth displacement. Both are iterated closest points, point to plane, on the skin of the face.

Conventions: metres, y up, z out of the face; the two heads have their eye joints in common to begin with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix, diags, identity
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH, FlameAssets
from edit3dgs_ns.flame.loading import load_assets

EYE_JOINTS = (3, 4)
"""Left and right."""
SAMPLES = 60_000
"""Points on the other head that the closest one is looked for among: less than a millimetre apart."""
ROUNDS = 20
FARTHEST = (0.025, 0.006)
"""Metres within which a closest point counts, in the first and in the last round."""
FACING = 0.5
"""Least cosine between two normals that belong together."""
SHAPE_STD = 0.6
NOISE = 0.002
"""Metres that the shape space may miss the other head by."""
TANGENTIAL = 0.05
"""Weight of the distance along the surface, beside that across it."""
STIFFNESS = (200.0, 50.0, 10.0)
"""Of the smooth displacement, round by round, in closest points a vertex."""
BEHIND = 0.11
"""Metres behind the eyes where the face ends."""
BELOW = 0.13
"""Metres below the eyes where the face ends: the chin, and some of the throat."""


@dataclass(frozen=True)
class RegisteredHead:
    """The open head in the shape of another head."""

    vertices: Float[np.ndarray, "V 3"]
    """In the other head's frame, metres."""
    scale: float
    """Of the open head to fit the other."""
    shape: Float[np.ndarray, " S"]
    rotation: Float[np.ndarray, "3 3"]
    distance: float
    """Median distance of the face's vertices from the other head, metres."""


def register(other: FlameAssets, source: FlameAssets | None = None) -> RegisteredHead:
    """Shape the open head (`source`) like the template of another head model."""
    head = source or load_assets(OPEN_HEAD_PATH)
    target = _Surface.of(other)
    face = face_vertices(head)
    scale, shape, turn, place = _fit_shape(head, other, target, face[::2])
    shaped = head.v_template.astype(np.float64) + head.shapedirs.astype(np.float64) @ shape
    vertices = scale * shaped @ turn.T + place
    vertices = _close_gaps(head, vertices, face, target)
    distance = float(np.median(target.nearest(vertices[face], vertex_normals(vertices, head.faces)[face])[2]))
    return RegisteredHead(vertices, scale, shape, turn, distance)


def face_vertices(head: FlameAssets) -> Int[np.ndarray, " n"]:
    """The skin of the face: what landmarks lie on, and enough around it."""
    eyes = (head.J_regressor @ head.v_template)[list(EYE_JOINTS)].mean(0)
    near = (head.v_template[:, 2] > eyes[2] - BEHIND) & (head.v_template[:, 1] > eyes[1] - BELOW)
    return np.intersect1d(head.vertex_regions["skin"], np.flatnonzero(near))


def eyeball_faces(head: FlameAssets) -> Bool[np.ndarray, "F 2"]:
    """Triangles of the left and of the right eyeball: those that the eyes' joints turn."""
    turned = head.weights[:, list(EYE_JOINTS)] > 0.5
    return turned[head.faces].all(1)


@dataclass(frozen=True)
class _Surface:
    """Points on the skin of a head, with normals."""

    tree: cKDTree
    points: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]

    @classmethod
    def of(cls, head: FlameAssets) -> _Surface:
        vertices = head.v_template.astype(np.float64)
        faces = head.faces[~eyeball_faces(head).any(1)]
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        cross = np.cross(b - a, c - a)
        area = np.linalg.norm(cross, axis=1)
        rng = np.random.default_rng(0)
        chosen = rng.choice(len(faces), SAMPLES, p=area / area.sum())
        u, v = rng.random((2, SAMPLES))
        u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
        points = a[chosen] + u[:, None] * (b - a)[chosen] + v[:, None] * (c - a)[chosen]
        normals = vertex_normals(vertices, head.faces)
        corners = normals[faces[chosen]]
        smooth = (
            corners[:, 0] * (1 - u - v)[:, None] + corners[:, 1] * u[:, None] + corners[:, 2] * v[:, None]
        )
        return cls(
            cKDTree(points), points, smooth / np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-9)
        )

    def nearest(
        self, points: Float[np.ndarray, "m 3"], normals: Float[np.ndarray, "m 3"], count: int = 12
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The nearest point that faces the same way, its normal, and the distance (infinite where none faces it)."""
        distance, index = self.tree.query(points, count)
        facing = np.einsum("mkc,mc->mk", self.normals[index], normals) > FACING
        distance = np.where(facing, distance, np.inf)
        best = distance.argmin(1)
        rows = np.arange(len(points))
        chosen = index[rows, best]
        return self.points[chosen], self.normals[chosen], distance[rows, best]


def _fit_shape(
    head: FlameAssets, other: FlameAssets, target: _Surface, face: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Scale, shape coefficients, rotation and translation of the open head."""
    eyes, goal = ((a.J_regressor @ a.v_template)[list(EYE_JOINTS)].astype(np.float64) for a in (head, other))
    scale = float(np.linalg.norm(goal[0] - goal[1]) / np.linalg.norm(eyes[0] - eyes[1]))
    turn, place = np.eye(3), goal.mean(0) - scale * eyes.mean(0)
    shape = np.zeros(head.shapedirs.shape[2])
    template, directions = head.v_template.astype(np.float64), head.shapedirs.astype(np.float64)
    joint_directions = np.einsum(
        "jv,vcs->jcs", head.J_regressor[list(EYE_JOINTS)].astype(np.float64), directions
    )
    for number in range(ROUNDS):
        shaped = template + directions @ shape
        posed = scale * shaped @ turn.T + place
        points, normals = posed[face], vertex_normals(posed, head.faces)[face]
        nearest, across, distance = target.nearest(points, normals)
        limit = FARTHEST[0] + (FARTHEST[1] - FARTHEST[0]) * number / (ROUNDS - 1)
        kept = distance < limit
        weight = 1 / (1 + (distance[kept] / (0.5 * limit)) ** 2)
        # Derivatives for scale, turn, translation and shape; a turn is about the world's origin.
        turned = np.einsum("ij,njs->nis", scale * turn, directions[face][kept])
        jacobian = _similarity_jacobian(points[kept], place)
        jacobian = np.concatenate([jacobian, turned], axis=2)
        error = nearest[kept] - points[kept]
        normal = np.einsum("nc,nck->nk", across[kept], jacobian)
        left = np.einsum("n,nk,nl->kl", weight, normal, normal)
        right = np.einsum("n,nk,n->k", weight, normal, np.einsum("nc,nc->n", across[kept], error))
        left += TANGENTIAL * np.einsum("n,nck,ncl->kl", weight, jacobian, jacobian)
        right += TANGENTIAL * np.einsum("n,nck,nc->k", weight, jacobian, error)
        # The eyes' joints are the two points that the heads are known to share.
        joints = scale * (eyes + joint_directions @ shape) @ turn.T + place
        of_joints = np.concatenate(
            [_similarity_jacobian(joints, place), np.einsum("ij,njs->nis", scale * turn, joint_directions)],
            axis=2,
        )
        weight_of_eyes = 0.02 * len(face)
        left += weight_of_eyes * np.einsum("nck,ncl->kl", of_joints, of_joints)
        right += weight_of_eyes * np.einsum("nck,nc->k", of_joints, goal - joints)
        prior = (NOISE / SHAPE_STD) ** 2 * len(face) / 100
        left[np.arange(7, len(left)), np.arange(7, len(left))] += prior
        right[7:] -= prior * shape
        left[np.diag_indices_from(left)] += 1e-12
        step = np.linalg.solve(left, right)
        grown, spin = float(np.exp(np.clip(step[0], -0.1, 0.1))), Rotation.from_rotvec(step[1:4]).as_matrix()
        scale, turn, place = scale * grown, spin @ turn, place + step[4:7]
        shape = np.clip(shape + step[7:], -2, 2)
    return scale, shape, turn, place


def _similarity_jacobian(points: np.ndarray, place: np.ndarray) -> Float[np.ndarray, "n 3 7"]:
    """Derivatives of posed points for the logarithm of the scale, the turn and the translation."""
    arm = points - place
    jacobian = np.zeros((len(points), 3, 7))
    jacobian[:, :, 0] = arm
    for axis in range(3):
        jacobian[:, :, 1 + axis] = np.cross(np.eye(3)[axis], arm)
    jacobian[:, :, 4:] = np.eye(3)
    return jacobian


def _close_gaps(head: FlameAssets, vertices: np.ndarray, face: np.ndarray, target: _Surface) -> np.ndarray:
    """Smooth displacements of all vertices that bring those of the face onto the other head."""
    laplacian = _laplacian(head.faces, len(vertices))
    smoothness = laplacian.T @ laplacian
    for stiffness in STIFFNESS:
        nearest, across, distance = target.nearest(vertices[face], vertex_normals(vertices, head.faces)[face])
        kept = distance < FARTHEST[1]
        weight = np.zeros(len(vertices))
        weight[face[kept]] = 1.0
        goal = np.zeros_like(vertices)
        # Across the surface alone: along it the shape space knows better than the closest point does.
        gap = np.einsum("nc,nc->n", across[kept], nearest[kept] - vertices[face[kept]])
        goal[face[kept]] = gap[:, None] * across[kept]
        system = diags(weight) + stiffness * smoothness + 1e-4 * identity(len(vertices))
        vertices = vertices + splu(system.tocsc()).solve(weight[:, None] * goal)
    return vertices


def _laplacian(faces: np.ndarray, count: int) -> csr_matrix:
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    rows, columns = np.concatenate([edges[:, 0], edges[:, 1]]), np.concatenate([edges[:, 1], edges[:, 0]])
    joined = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    degree = np.maximum(np.asarray(joined.sum(1)).ravel(), 1)
    return csr_matrix(identity(count) - diags(1 / degree) @ joined)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> Float[np.ndarray, "V 3"]:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    total = np.stack(
        [np.bincount(faces.ravel(), np.repeat(cross[:, k], 3), len(vertices)) for k in range(3)], axis=1
    )
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
