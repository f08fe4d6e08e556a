"""Small random head models and a slow skinning oracle."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from edit3dgs_ns.flame.assets import FlameAssets


def random_assets(
    num_vertices: int = 37, num_shape: int = 4, num_expr: int = 3, seed: int = 0
) -> FlameAssets:
    """A head of random numbers with FLAME's five joints."""
    rng = np.random.default_rng(seed)
    weights = rng.random((num_vertices, 5)) ** 3
    regressor = rng.random((5, num_vertices))
    return FlameAssets(
        v_template=rng.normal(size=(num_vertices, 3)).astype(np.float32),
        faces=rng.integers(0, num_vertices, (20, 3)),
        shapedirs=0.1 * rng.normal(size=(num_vertices, 3, num_shape)).astype(np.float32),
        exprdirs=0.1 * rng.normal(size=(num_vertices, 3, num_expr)).astype(np.float32),
        posedirs=0.1 * rng.normal(size=(num_vertices, 3, 36)).astype(np.float32),
        J_regressor=(regressor / regressor.sum(1, keepdims=True)).astype(np.float32),
        parents=np.array([-1, 0, 1, 1, 1]),
        weights=(weights / weights.sum(1, keepdims=True)).astype(np.float32),
        source=Path("random"),
    )


def oracle(assets, shape, offset, expr, rotation, neck, jaw, eyes, translation) -> np.ndarray:
    """One frame, vertex by vertex in float64, straight from the paper: no shared code, no batched algebra."""

    def rotate(axis_angle):
        """Matrix exponential by its power series."""
        x, y, z = (float(a) for a in axis_angle)
        k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        return sum(np.linalg.matrix_power(k, n) / float(math.factorial(n)) for n in range(30))

    f = lambda a: np.asarray(a, np.float64)  # noqa: E731
    rest = f(assets.v_template).copy()
    for i, b in enumerate(shape):
        rest += b * f(assets.shapedirs)[:, :, i]
    rest += 0 if offset is None else offset
    for i, b in enumerate(expr):
        rest += b * f(assets.exprdirs)[:, :, i]
    joints = f(assets.J_regressor) @ rest
    matrices = [rotate(r) for r in (rotation, neck, jaw, eyes[:3], eyes[3:])]
    feature = np.concatenate([(m - np.eye(3)).ravel() for m in matrices[1:]])
    rest = rest + f(assets.posedirs) @ feature
    out = np.zeros_like(rest)
    for v, point in enumerate(rest):
        for j in range(5):
            moved, at = point, j
            while at >= 0:  # turn about the joint, then about its parent, up to the root
                moved = matrices[at] @ (moved - joints[at]) + joints[at]
                at = int(assets.parents[at])
            out[v] += f(assets.weights)[v, j] * moved
    return out + translation
