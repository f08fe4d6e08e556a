"""Finding and reading head models: FLAME's pickles (licensed, brought by the user) and the embedded open
head.

A FLAME pickle is untrusted input. It is read by an unpickler that builds array types only: NumPy arrays and
dtypes, SciPy's compressed sparse matrices and chumpy arrays (as plain data). Anything else ends with an error
that names it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edit3dgs_ns.flame.safe_pickle import read_flame_pickle

MODEL_PATH_VARIABLE = "FLAME_MODEL_PATH"
OPEN_HEAD_PATH = Path(__file__).parent / "data" / "open_head.npz"
FLAME_MASKS_NAME = "FLAME_masks.pkl"
FLAME_NUM_SHAPE = 300
"""FLAME stores its shape directions first and its expression directions after them (Li et al., SIGGRAPH Asia 2017)."""


@dataclass(frozen=True)
class FlameAssets:
    """A parametric head as arrays, whatever file it came from. Metres; y up, z out of the face, x to its own
    left.

    V vertices, F faces, S shape and E expression directions, J joints (global, neck, jaw, left eye, right
    eye).
    """

    v_template: np.ndarray
    """(V, 3) float32 mean head."""
    faces: np.ndarray
    """(F, 3) int64 vertex indices, counter-clockwise seen from outside."""
    shapedirs: np.ndarray
    """(V, 3, S) float32 displacement per unit of each shape coefficient."""
    exprdirs: np.ndarray
    """(V, 3, E) float32 displacement per unit of each expression coefficient."""
    posedirs: np.ndarray
    """(V, 3, 9 (J-1)) float32 displacement per entry of the joints' rotation matrices minus identity."""
    J_regressor: np.ndarray
    """(J, V) float32 joint positions as averages of vertices."""
    parents: np.ndarray
    """(J,) int64 parent of each joint, -1 for the root."""
    weights: np.ndarray
    """(V, J) float32 skinning weights; rows sum to 1."""
    uv: np.ndarray | None = None
    """(U, 2) float32 texture coordinates, or None."""
    uv_faces: np.ndarray | None = None
    """(F, 3) int64 indices into ``uv``, or None."""
    vertex_regions: dict[str, np.ndarray] = field(default_factory=dict)
    """Region name -> sorted vertex indices (int64)."""
    face_regions: dict[str, np.ndarray] = field(default_factory=dict)
    """Region name -> sorted face indices (int64)."""
    shape_names: tuple[str, ...] | None = None
    """Name of each shape direction, where it has one."""
    expression_names: tuple[str, ...] | None = None
    """Name of each expression direction, where it has one (the open head: ARKit's)."""
    name: str = "flame"
    """"open-head" or "flame"."""
    source: Path = OPEN_HEAD_PATH
    """The file that was read."""

    @property
    def num_vertices(self) -> int:
        """V."""
        return len(self.v_template)

    def expression_index(self, name: str) -> int:
        """Index of a named expression direction.

        Raises:
            ValueError: the model has no direction of that name.
        """
        if self.expression_names is None or name not in self.expression_names:
            known = "none are named" if self.expression_names is None else ", ".join(self.expression_names)
            raise ValueError(f"{self.source}: no expression direction is called {name!r} (known: {known})")
        return self.expression_names.index(name)


def load_assets(path: str | Path | None = None, masks: str | Path | None = None) -> FlameAssets:
    """Reads a head model.

    FLAME gets its regions and GaussianAvatars' teeth (5143 vertices, as in VHAP's captures) when its masks
    are there.

    Args:
        path: a FLAME pickle (``.pkl``) or an npz with FLAME's keys. None takes the file named by the
            environment variable ``FLAME_MODEL_PATH``, and without one the embedded open head.
        masks: ``FLAME_masks.pkl``. None takes the file of that name beside a FLAME model, if there is one.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is no head model, or holds objects that are not arrays.
    """
    origin = "the head model"
    if path is None and os.environ.get(MODEL_PATH_VARIABLE):
        path, origin = os.environ[MODEL_PATH_VARIABLE], f"the environment variable {MODEL_PATH_VARIABLE}"
    path = OPEN_HEAD_PATH if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} (from {origin}): no such file. Expected FLAME's generic_model.pkl or an npz with the "
            "same keys; get "
            "FLAME at https://flame.is.tue.mpg.de, or leave the option out to use the embedded open head."
        )
    table = _read_npz(path) if path.suffix == ".npz" else read_flame_pickle(path)
    assets = _assets_from_table(table, path)
    if assets.name == "open-head":
        return assets
    beside = path.parent / FLAME_MASKS_NAME
    return _with_masks_and_teeth(assets, masks or beside) if masks or beside.is_file() else assets


def _with_masks_and_teeth(assets: FlameAssets, masks: str | Path) -> FlameAssets:
    from edit3dgs_ns.flame.regions import with_flame_masks
    from edit3dgs_ns.flame.teeth import FLAME_VERTICES, add_teeth

    assets = with_flame_masks(assets, masks)
    return add_teeth(assets) if assets.num_vertices == FLAME_VERTICES else assets


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: not a readable npz of plain arrays ({error})") from error


def _array(table: dict, key: str, path: Path, *shape: int | None) -> np.ndarray:
    """One array of the table; ``None`` in ``shape`` allows any length."""
    if key not in table:
        raise ValueError(
            f"{path}: has no {key!r}; expected FLAME's keys, found {', '.join(sorted(map(str, table)))}"
        )
    array = table[key]
    if hasattr(array, "toarray"):
        array = array.toarray()
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {key!r} is no numeric array ({type(array).__name__})")
    fits = array.ndim == len(shape) and all(
        s is None or s == n for s, n in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = tuple("any" if s is None else s for s in shape)
        raise ValueError(f"{path}: {key!r} has shape {array.shape}, expected {wanted}")
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: {key!r} holds values that are not finite")
    return array


def _indices(array: np.ndarray, limit: int, what: str, path: Path) -> np.ndarray:
    array = array.astype(np.int64)
    if array.size and (array.min() < 0 or array.max() >= limit):
        raise ValueError(
            f"{path}: {what} runs from {array.min()} to {array.max()}, expected 0 to {limit - 1}"
        )
    return array


def _split_directions(table: dict, path: Path, num_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Shape and expression directions: two keys in the open head, one in FLAME."""
    directions = _array(table, "shapedirs", path, num_vertices, 3, None)
    if "exprdirs" in table:
        return directions, _array(table, "exprdirs", path, num_vertices, 3, None)
    if directions.shape[2] <= FLAME_NUM_SHAPE:
        raise ValueError(
            f"{path}: 'shapedirs' has {directions.shape[2]} directions; FLAME has {FLAME_NUM_SHAPE} of "
            "shape and then those "
            "of expression. Expected more, or a separate 'exprdirs'."
        )
    return directions[..., :FLAME_NUM_SHAPE], directions[..., FLAME_NUM_SHAPE:]


def _parents(table: dict, path: Path, num_joints: int) -> np.ndarray:
    tree = _array(table, "kintree_table", path, 2, num_joints)
    parents = tree[0].astype(np.int64)
    parents[0] = -1  # FLAME stores 2**32 - 1 there
    if not all(0 <= p < j for j, p in enumerate(parents.tolist()) if j > 0):
        raise ValueError(
            f"{path}: 'kintree_table' row 0 is {parents.tolist()}, expected every parent before its child"
        )
    return parents


def _assets_from_table(table: dict, path: Path) -> FlameAssets:
    """Checks shapes and index ranges, and gives every array its dtype."""
    v_template = _array(table, "v_template", path, None, 3).astype(np.float32)
    n = len(v_template)
    faces = _indices(_array(table, "f", path, None, 3), n, "'f'", path)
    weights = _array(table, "weights", path, n, None).astype(np.float32)
    joints = weights.shape[1]
    shapedirs, exprdirs = _split_directions(table, path, n)
    uv = uv_faces = None
    if "vt" in table and "ft" in table:
        uv = _array(table, "vt", path, None, 2).astype(np.float32)
        uv_faces = _indices(_array(table, "ft", path, len(faces), 3), len(uv), "'ft'", path)
    regions: dict[str, dict[str, np.ndarray]] = {"vertex_region": {}, "face_region": {}}
    for key in table:
        kind, _, name = str(key).partition("/")
        if kind in regions and name:
            limit = n if kind == "vertex_region" else len(faces)
            regions[kind][name] = _indices(_array(table, key, path, None), limit, f"{key!r}", path)
    return FlameAssets(
        v_template=v_template,
        faces=faces,
        shapedirs=shapedirs.astype(np.float32),
        exprdirs=exprdirs.astype(np.float32),
        posedirs=_array(table, "posedirs", path, n, 3, 9 * (joints - 1)).astype(np.float32),
        J_regressor=_array(table, "J_regressor", path, joints, n).astype(np.float32),
        parents=_parents(table, path, joints),
        weights=weights,
        uv=uv,
        uv_faces=uv_faces,
        vertex_regions=regions["vertex_region"],
        face_regions=regions["face_region"],
        shape_names=_names(table, "shape_names"),
        expression_names=_names(table, "expression_names"),
        name="open-head" if "exprdirs" in table else "flame",
        source=path,
    )


def _names(table: dict, key: str) -> tuple[str, ...] | None:
    return tuple(str(name) for name in table[key]) if key in table else None
