"""Files with exactly FLAME's keys, shapes and dtypes; the numbers are made up.

FLAME 2020 (`generic_model.pkl`) was pickled by Python 2 with chumpy objects; FLAME 2023 (`flame2023.pkl`) and FLAME 2023 Open
(`flame2023_Open.pkl`) hold NumPy arrays.
The stand-in has the facts of FLAME's topology that anything here depends on: 5,023 vertices, 9,976 faces, the two rows of 15
vertices on the outer edge of the red of the lips (their numbers are FLAME's, neighbours share an edge), a mask "lips" of 254
vertices that reaches three edges further out, eyeballs of 546 vertices at the end. Its mouth is concentric ellipses, the rest
are points on a sphere and faces at random.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import sparse

VERTICES, FACES, DIRECTIONS = 5023, 9976, 400
Release = Literal[2020, 2023, "open"]
UPPER = (1713, 1715, 1716, 1735, 1696, 1694, 1657, 3543, 2774, 2811, 2813, 2850, 2833, 2832, 2830)
LOWER = (1576, 1577, 1773, 1774, 1795, 1802, 1865, 3503, 2948, 2905, 2898, 2881, 2880, 2713, 2712)
"""Both rows as DESIGN names them (FLAME's numbers, from the subject's left to the right): written out again, not imported."""
_RING = 32
"""Vertices around the mouth: a row above, a row below, two corners."""
_SIZES = (1.6, 1.4, 1.2, 1.0, 0.8, 0.6, 0.4)
"""Of the concentric rings; the rows are on the one of size 1. With 30 vertices inside they make the 254 of FLAME's mask."""
_EYEBALLS = {"left_eyeball": np.arange(3931, 4477), "right_eyeball": np.arange(4477, 5023)}


def _mouth() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertex numbers (7, 32) of the rings around the mouth, their positions, and the numbers of 30 vertices inside."""
    free = np.setdiff1d(np.arange(3931), UPPER + LOWER)
    rings = free[: len(_SIZES) * _RING].reshape(len(_SIZES), _RING)
    inside = free[rings.size : rings.size + 30]
    # From the left corner over the upper lip to the right corner, and back over the lower lip.
    rings[_SIZES.index(1.0)] = [rings[3, 0], *UPPER, rings[3, 16], *LOWER[::-1]]
    angle = 2 * np.pi * np.arange(_RING) / _RING
    x, y = np.outer(_SIZES, 0.025 * np.cos(angle)), np.outer(_SIZES, 0.006 * np.sin(angle))
    return rings, np.stack([x, y, 0.09 - 20 * x**2 - 50 * y**2], axis=-1), inside


@cache
def flame_arrays(seed: int = 0) -> dict[str, Any]:
    """The model's arrays, before they are put into the types of one release. Read only."""
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(VERTICES, 3))
    v *= 0.1 / np.linalg.norm(v, axis=1, keepdims=True)
    rings, positions, inside = _mouth()
    v[rings], v[inside] = positions, positions[-1, :30] * [0.5, 0.5, 1.0]
    after = np.roll(rings, -1, axis=1)
    strips = np.concatenate(
        [
            np.stack([outer, outer_after, inner_after, outer, inner_after, inner], axis=1).reshape(-1, 3)
            for outer, outer_after, inner, inner_after in zip(
                rings, after, rings[1:], after[1:], strict=False
            )
        ]
    )
    lips = np.concatenate([rings.ravel(), inside])
    rest = np.setdiff1d(np.arange(VERTICES), lips)
    others = rng.choice(rest, size=(FACES - len(strips), 3))
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
        "f": np.concatenate([strips, others]).astype(np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def flame_table(num_vertices: int = 30, seed: int = 0) -> dict[str, Any]:
    """FLAME's keys and types with fewer vertices: another topology."""
    rng = np.random.default_rng(seed)
    regressor = rng.random((5, num_vertices)) * (rng.random((5, num_vertices)) > 0.5)
    return {
        "v_template": rng.normal(size=(num_vertices, 3)),
        "shapedirs": rng.normal(size=(num_vertices, 3, 400)),
        "posedirs": rng.normal(size=(num_vertices, 3, 36)),
        "J_regressor": sparse.csc_matrix(regressor),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], dtype=np.uint32),
        "weights": rng.random((num_vertices, 5)),
        "f": rng.integers(0, num_vertices, (40, 3)).astype(np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def flame_masks() -> dict[str, np.ndarray]:
    """What `FLAME_masks.pkl` holds, as far as anything here reads it."""
    rings, _, inside = _mouth()
    lips = np.sort(np.concatenate([rings.ravel(), inside]))
    return {"lips": lips, "face": np.setdiff1d(np.arange(3000), lips), **_EYEBALLS}


_NAMES: dict[Release, str] = {2020: "generic_model.pkl", 2023: "flame2023.pkl", "open": "flame2023_Open.pkl"}


def write_flame(folder: Path, release: Release, seed: int = 0, masks: bool = True) -> Path:
    """`generic_model.pkl` (2020), `flame2023.pkl` (2023) or `flame2023_Open.pkl`, with `FLAME_masks.pkl` beside it.

    Returns:
        The model's file.
    """
    table = dict(flame_arrays(seed))
    table["J_regressor"] = sparse.csc_matrix(table["J_regressor"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _NAMES[release]
    if release == 2020:
        with _chumpy() as chumpy:
            arrays = {name: chumpy(table[name]) for name in ("v_template", "shapedirs")}
            path.write_bytes(pickle.dumps({**table, **arrays, "J": chumpy(np.zeros((5, 3)))}, protocol=2))
    else:
        path.write_bytes(pickle.dumps({**table, "J": np.zeros((5, 3))}, protocol=2))
    if masks:
        (folder / "FLAME_masks.pkl").write_bytes(pickle.dumps(flame_masks(), protocol=2))
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
