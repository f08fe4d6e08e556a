"""Five joints like FLAME's: skinning weights from MakeHuman's rig, and the joint regressor."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from tools.data.open_head.assemble import Head

JOINTS = ("global", "neck", "jaw", "eye_left", "eye_right")
PARENTS = np.array([-1, 0, 1, 1, 1])
# How much of each bone of the neck follows the neck joint; the rest stays with the bust.
NECK_SHARE = {"neck01": 0.22, "neck02": 0.55, "neck03": 0.88}
# How much of the bones at the corners of the mouth follows the jaw.
CORNER_SHARE = {"risorius03.L": 0.2, "risorius03.R": 0.2}
# MakeHuman's chin follows its jaw by about 0.85 only; above this the weight counts as 1, so that the chin
# keeps up with the teeth.
JAW_FULL = 0.8


def _ancestors(bone: str, parent: dict[str, str]) -> list[str]:
    out = [bone]
    while parent.get(out[-1]):
        out.append(parent[out[-1]])
    return out


def _smooth(values: np.ndarray, faces: np.ndarray, where: np.ndarray, rounds: int) -> np.ndarray:
    """Averages with the neighbours, ``rounds`` times, at the vertices of ``where``."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    n = len(values)
    adjacency = sparse.coo_matrix((np.ones(len(edges)), edges.T), shape=(n, n)).tocsr()
    adjacency = ((adjacency + adjacency.T) > 0).astype(float)
    degree = np.maximum(np.asarray(adjacency.sum(1)).ravel(), 1)
    for _ in range(rounds):
        mean = (adjacency @ values) / degree[:, None]
        values = np.where(where[:, None], 0.5 * values + 0.5 * mean, values)
    return values


def skin_weights(head: Head, bones: dict[str, np.ndarray], parent: dict[str, str]) -> np.ndarray:
    """(V, 5) linear blend skinning weights, rows sum to 1."""
    base = np.zeros((len(next(iter(bones.values()))), 5))
    for bone, w in bones.items():
        chain = _ancestors(bone, parent)
        jaw = 1.0 if "jaw" in chain else CORNER_SHARE.get(bone, 0.0)
        neck = NECK_SHARE.get(bone, 1.0 if "head" in chain else 0.0)
        base[:, 2] += w * jaw
        base[:, 1] += w * neck * (1 - jaw)
        base[:, 0] += w * (1 - neck)
    weights = head.scalar(base)
    weights /= weights.sum(1, keepdims=True)
    jaw = np.minimum(weights[:, 2] / JAW_FULL, 1)
    # The inside of the mouth decides sooner, or the floor of the mouth would rise over the lower teeth.
    inside = np.clip((weights[:, 2] - 0.12) / 0.45, 0, 1)
    jaw = np.where(head.islands_of_vertices() == "mouth", inside * inside * (3 - 2 * inside), jaw)
    weights[:, :2] *= ((1 - jaw) / np.maximum(1 - weights[:, 2], 1e-9))[:, None]
    weights[:, 2] = jaw

    skin = head.vertices_of("skin") | head.vertices_of("bust_cap")
    low = skin & (head.vertices[:, 1] < -0.02)
    weights[:, :2] = _smooth(weights[:, :2], head.faces, low & (weights[:, 2] < 1e-3), 25)
    weights = _smooth(weights, head.faces, skin & (weights[:, 2] > 0) & (weights[:, 2] < 0.999), 2)
    rigid = {"eye_left": 3, "eye_right": 4, "teeth_upper": 1, "teeth_lower": 2, "tongue": 2}
    for name, joint in rigid.items():
        weights[head.vertices_of(name)] = np.eye(5)[joint]
    # The border of the bust stands still, and the neck's share fades out towards it.
    height = np.clip((head.vertices[:, 1] + 0.150) / 0.06, 0, 1)
    fade = np.where(skin, height * height * (3 - 2 * height), 1.0)
    moved = weights[:, 1] * (1 - fade)
    weights[:, 1] -= moved
    weights[:, 0] += moved
    # The cap's outer ring repeats the border of the skin; the rest of it stands still.
    cap, cut = np.flatnonzero(head.vertices_of("bust_cap")), np.flatnonzero(head.tagged("cut"))
    distance, nearest = cKDTree(head.vertices[cut]).query(head.vertices[cap])
    weights[cap] = np.where((distance < 1e-9)[:, None], weights[cut[nearest]], np.eye(5)[0])
    weights[weights < 1e-4] = 0
    return weights / weights.sum(1, keepdims=True)


def _affine_row(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights nearest to uniform that sum to 1 and average ``points`` to ``target`` (least norm)."""
    n = len(points)
    constraints = np.concatenate([points.T, np.ones((1, n))])
    uniform = np.full(n, 1 / n)
    residual = np.append(target, 1.0) - constraints @ uniform
    return uniform + np.linalg.pinv(constraints) @ residual


def joint_regressor(head: Head, jaw_hinge: np.ndarray) -> np.ndarray:
    """(5, V) regressor; every row sums to 1, so that joints move with the head.

    Args:
        head: the head.
        jaw_hinge: (3,) between the jaw's two hinges, in metres.
    """
    v = head.vertices
    out = np.zeros((5, len(v)))
    for joint, name in ((3, "eye_left"), (4, "eye_right")):
        rows = np.flatnonzero(head.vertices_of(name))
        # Opposite poles and rings balance exactly only as a solid angle: solve for the centre of the sphere
        # instead.
        out[joint, rows] = _affine_row(v[rows], _sphere_centre(v[rows]))
    skin = head.vertices_of("skin")
    places = {
        0: (np.array([0.0, -0.150, -0.070]), (np.abs(v[:, 1] + 0.145) < 0.012)),
        1: (np.array([0.0, -0.068, -0.062]), (np.abs(v[:, 1] + 0.068) < 0.020) & (v[:, 2] < 0.0)),
        2: (jaw_hinge, (np.hypot(*(v[:, 1:] - jaw_hinge[1:]).T) < 0.020) & (np.abs(v[:, 0]) > 0.045)),
    }
    for joint, (place, near) in places.items():
        rows = np.flatnonzero(skin & near & (head.islands_of_vertices() == "skin"))
        out[joint, rows] = _affine_row(v[rows], place)
    return out


def _sphere_centre(points: np.ndarray) -> np.ndarray:
    """Centre of the sphere through the points (linear least squares)."""
    system = np.concatenate([2 * points, np.ones((len(points), 1))], 1)
    return np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0][:3]
