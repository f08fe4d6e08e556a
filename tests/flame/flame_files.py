"""Files with exactly FLAME 2020's and FLAME 2023's keys, shapes and dtypes; the numbers are made up.

FLAME 2020 (`generic_model.pkl`) was pickled by Python 2 with chumpy objects, FLAME 2023 (`flame2023.pkl`) holds NumPy arrays.
Here both are points on a sphere, with a ring of lips (30 vertices and two corners) and faces at random.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

VERTICES, FACES, DIRECTIONS = 5023, 9976, 400
RING = 32
"""Vertices of the lips' outer ring: 15 above, 15 below, two corners."""


@cache
def flame_arrays(seed: int = 0) -> dict[str, Any]:
    """The model's arrays, before they are put into the types of one release. Read only."""
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(VERTICES, 3))
    v *= 0.1 / np.linalg.norm(v, axis=1, keepdims=True)
    angle = np.pi - 2 * np.pi * np.arange(RING) / RING
    ring = np.stack([0.025 * np.cos(angle), 0.010 * np.sin(angle), 0.09 - 0.02 * np.cos(angle) ** 2], axis=1)
    v[:RING], v[RING : 2 * RING] = ring, ring * [0.7, 0.3, 1.0]
    k, following = np.arange(RING), (np.arange(RING) + 1) % RING
    lips = np.concatenate(
        [np.stack([k, following, RING + following], 1), np.stack([k, RING + following, RING + k], 1)]
    )
    others = 2 * RING + np.stack([rng.permutation(VERTICES - 2 * RING)[:3] for _ in range(FACES - len(lips))])
    regressor = rng.random((5, VERTICES)) * (rng.random((5, VERTICES)) > 0.99)
    weights = rng.random((VERTICES, 5)) ** 6
    return {
        "v_template": v,
        # An outer product: six million numbers, made at once.
        "shapedirs": 1e-3 * rng.normal(size=(VERTICES, 3, 1)) * rng.normal(size=DIRECTIONS),
        "posedirs": 1e-3 * rng.normal(size=(VERTICES, 3, 36)),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], dtype=np.uint32),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "f": np.concatenate([lips, others]).astype(np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def write_flame(folder: Path, release: int, seed: int = 0, masks: bool = True) -> Path:
    """`generic_model.pkl` (2020) or `flame2023.pkl` (2023), with `FLAME_masks.pkl` beside it.

    Returns:
        The model's file.
    """
    table = dict(flame_arrays(seed))
    table["J_regressor"] = sparse.csc_matrix(table["J_regressor"])
    folder.mkdir(parents=True, exist_ok=True)
    if release == 2020:
        path = folder / "generic_model.pkl"
        with _chumpy() as chumpy:
            arrays = {name: chumpy(table[name]) for name in ("v_template", "shapedirs")}
            path.write_bytes(pickle.dumps({**table, **arrays, "J": chumpy(np.zeros((5, 3)))}, protocol=2))
    else:
        path = folder / "flame2023.pkl"
        path.write_bytes(pickle.dumps({**table, "J": np.zeros((5, 3))}, protocol=2))
    if masks:
        names = {
            "lips": np.arange(2 * RING),
            "left_eyeball": np.arange(100, 140),
            "right_eyeball": np.arange(140, 180),
        }
        names["face"] = np.arange(2 * RING, 3000)
        (folder / "FLAME_masks.pkl").write_bytes(pickle.dumps(names, protocol=2))
    return path


@contextmanager
def _chumpy() -> Iterator[type]:
    """A class that pickles as chumpy 0.70's `Ch` does: the state that its `__getstate__` leaves, a set in it."""
    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch")}

    class Ch:
        def __init__(self, x: np.ndarray):
            self._dirty_vars: set[str] = {"x"}
            self._itr = None
            self._depends_on_deps: dict[str, Any] = {}
            self._make_dense = self._make_sparse = False
            self.x = x
            self._status = "new"

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    modules["chumpy.ch"].Ch = Ch  # type: ignore[attr-defined]
    sys.modules.update(modules)
    try:
        yield Ch
    finally:
        for name in modules:
            sys.modules.pop(name, None)
