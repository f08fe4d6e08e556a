"""The open head in a file with FLAME's keys: a head model of another shape and topology whose every point is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH, FlameAssets
from edit3dgs_ns.flame.loading import FLAME_NUM_SHAPE, load_assets


def another_face(seed: int, warp: float = 0.002) -> Float[np.ndarray, "V 3"]:
    """The open head's vertices as another person, bent by waves (metres) that no shape direction knows."""
    head = load_assets(OPEN_HEAD_PATH)
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(0, 0.4, head.shapedirs.shape[2])
    vertices = head.v_template + head.shapedirs @ coefficients
    waves = np.sin(vertices @ rng.normal(0, 30, (3, 3)) + rng.uniform(0, 6, 3))
    return (vertices + warp * waves).astype(np.float64)


def write_as_flame(
    path: Path, template: np.ndarray | None = None, num_expr: int | None = None, finer: bool = False
) -> Path:
    """An npz with FLAME's keys.

    Args:
        template: of the open head's topology; None: its own.
        num_expr: expression directions; None: the open head's 52, else as many orthogonal mixtures of them.
        finer: every triangle in four, and the vertices in another order.
    """
    head = load_assets(OPEN_HEAD_PATH)
    vertices = head.v_template.astype(np.float64) if template is None else template
    expressions = head.exprdirs.astype(np.float64)
    if num_expr is not None:
        mixed = np.random.default_rng(1).normal(size=(52, num_expr))
        expressions = expressions @ (np.linalg.qr(mixed)[0] if num_expr <= 52 else mixed / np.sqrt(52))
    shapes = np.zeros((len(vertices), 3, FLAME_NUM_SHAPE))
    shapes[..., : head.shapedirs.shape[2]] = head.shapedirs
    faces, refine = _subdivided(head) if finer else (head.faces, None)

    def fine(values: np.ndarray) -> np.ndarray:
        return values if refine is None else np.einsum("vk,vk...->v...", refine[1], values[refine[0]])

    regressor = head.J_regressor
    if refine is not None:
        order = refine[2]
        regressor = np.zeros((5, len(order)), np.float32)
        regressor[:, order[: head.num_vertices]] = head.J_regressor
    np.savez(
        path,
        v_template=fine(vertices),
        f=faces.astype(np.uint32),
        shapedirs=fine(np.concatenate([shapes, expressions], axis=2)).astype(np.float32),
        posedirs=np.zeros((regressor.shape[1], 3, 36), np.float32),
        J_regressor=regressor,
        weights=fine(head.weights.astype(np.float64)),
        kintree_table=np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], dtype=np.uint32),
    )
    return path


def _subdivided(head: FlameAssets) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Faces, and for every new vertex two old ones with their weights; `order` says where the old vertices went."""
    pairs = np.sort(
        np.concatenate([head.faces[:, [0, 1]], head.faces[:, [1, 2]], head.faces[:, [2, 0]]]), axis=1
    )
    edges, number = np.unique(pairs, axis=0, return_inverse=True)
    middle = number.reshape(3, -1).T + head.num_vertices
    a, b, c = head.faces.T
    ab, bc, ca = middle.T
    faces = np.concatenate(
        [np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    )
    count = head.num_vertices + len(edges)
    order = np.random.default_rng(2).permutation(count)
    corners, weights = np.zeros((count, 2), np.int64), np.zeros((count, 2))
    own = np.arange(head.num_vertices)
    corners[order[own]], weights[order[own], 0] = own[:, None], 1
    corners[order[head.num_vertices :]], weights[order[head.num_vertices :]] = edges, 0.5
    return order[faces], (corners, weights, order)
