"""Reads head models from files: FLAME's pickles (licensed, brought by the user) and the embedded open head.

| file | what it is |
|---|---|
| `flame2023_Open.pkl`, or the ZIP it is downloaded in | FLAME 2023 Open, CC BY 4.0 since November 2025: recommended |
| `flame2023.pkl`, `generic_model.pkl` | FLAME 2023 and 2020 |
| `*.npz` | arrays under FLAME's keys |
| `open_head.npz` | the embedded open head |

A FLAME pickle is untrusted input. It is read by an unpickler that builds array types only (see `safe_pickle`). A ZIP is read in
memory; nothing is extracted.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.flame.arrays import as_float32
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH, FlameAssets
from edit3dgs_ns.flame.regions import FLAME_MASKS_NAME, with_flame_masks
from edit3dgs_ns.flame.safe_pickle import parse_flame_pickle
from edit3dgs_ns.flame.teeth import add_teeth, has_flame_topology
from edit3dgs_ns.untrusted import read_npz

MODEL_PATH_VARIABLE = "FLAME_MODEL_PATH"
FLAME_SITE = "https://flame.is.tue.mpg.de"
FLAME_NAMES = ("flame2023_Open.pkl", "flame2023.pkl", "generic_model.pkl")
"""Files of FLAME's releases, the recommended one first."""
RECOMMENDED = f"FLAME 2023 Open (flame2023_Open.pkl or its ZIP, CC BY since November 2025) from {FLAME_SITE}"
"""What to get, for messages."""
FLAME_NUM_SHAPE = 300
"""FLAME stores its shape directions first and its expression directions after them (Li et al., SIGGRAPH Asia 2017)."""
_MOST_BYTES = 1 << 29
"""Largest model that is read from a ZIP, uncompressed; FLAME's are about 55 MB."""


def load_assets(path: str | Path | None = None, masks: str | Path | None = None) -> FlameAssets:
    """Reads a head model.

    A model with FLAME's topology gets GaussianAvatars' teeth (5143 vertices, as in VHAP's captures). Its other named regions
    come from ``FLAME_masks.pkl``, where that is given or lies beside the model.

    Args:
        path: a FLAME pickle, the ZIP that it is downloaded in, or an npz with FLAME's keys. None takes the file named by the
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
        raise MissingFileError(
            f"{path} (from {origin}): no such file. Expected FLAME's pickle, the ZIP it is downloaded in, or an npz with the same "
            f"keys. Get {RECOMMENDED}, or leave the option out to use the embedded open head."
        )
    assets = _assets_from_table(_read_table(path), path)
    if assets.name == "open-head":
        return assets
    beside = path.parent / FLAME_MASKS_NAME
    if masks or beside.is_file():
        assets = with_flame_masks(assets, masks or beside)
    return add_teeth(assets) if has_flame_topology(assets) else assets


def head_with(num_vertices: int | None, flame_model: str | Path | None = None) -> FlameAssets:
    """The head model that an avatar is bound to: the given file, or the embedded open head if it has this many vertices.

    Args:
        num_vertices: of the avatar's head; None if unknown.
        flame_model: FLAME's file; None: the open head where it fits, else what FLAME_MODEL_PATH names.

    Raises:
        FileNotFoundError, ValueError: as `load_assets`.
    """
    if flame_model is None:
        open_head = load_assets(OPEN_HEAD_PATH)
        if num_vertices == open_head.num_vertices:
            return open_head
    return load_assets(flame_model)


def _read_table(path: Path) -> dict[str, np.ndarray]:
    kind = path.suffix.lower()
    if kind == ".npz":
        return read_npz(path)
    if kind == ".zip":
        member, data = _model_in_zip(path)
        return parse_flame_pickle(data, f"{path}: {member}")
    return parse_flame_pickle(path.read_bytes(), str(path))


def _model_in_zip(path: Path) -> tuple[str, bytes]:
    """Name and content of FLAME's pickle in a ZIP, in whatever folder of it; nothing is written to disk.

    Raises:
        ValueError: the ZIP is damaged or encrypted, or holds no model, several or one that is too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = _model_member(path, archive)
            if member.file_size > _MOST_BYTES:
                raise UserError(
                    f"{path}: {member.filename} is {member.file_size / 1e6:.0f} MB uncompressed; FLAME's models have about 55 MB"
                )
            # `file_size` is what the archive claims: reading stops at the bound, whatever it claims.
            with archive.open(member) as file:
                data = file.read(_MOST_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        # RuntimeError: encrypted. NotImplementedError: a compression that Python does not have.
        raise UserError(f"{path}: not a readable ZIP ({error}). Download {RECOMMENDED}.") from error
    if len(data) > _MOST_BYTES:
        raise UserError(f"{path}: {member.filename} is longer than the archive says; the ZIP is damaged")
    return member.filename, data


def _model_member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The member to read: the first of `FLAME_NAMES` that is there, else the only pickle besides the masks."""
    pickles = [
        member
        for member in archive.infolist()
        if member.filename.lower().endswith(".pkl")
        and not PurePosixPath(member.filename).name.startswith("._")  # macOS' resource forks
        and PurePosixPath(member.filename).name != FLAME_MASKS_NAME
    ]
    for name in FLAME_NAMES:
        found = [member for member in pickles if PurePosixPath(member.filename).name.lower() == name.lower()]
        if found:
            return found[0]
    if len(pickles) == 1:
        return pickles[0]
    names = ", ".join(member.filename for member in pickles) or "no .pkl file"
    raise UserError(
        f"{path}: found {names}; expected one of {', '.join(FLAME_NAMES)}. Download {RECOMMENDED}, or name the .pkl file itself."
    )


def _array(table: dict, key: str, path: Path, *shape: int | None) -> np.ndarray:
    """One array of the table; ``None`` in ``shape`` allows any length."""
    if key not in table:
        raise UserError(
            f"{path}: has no {key!r}; expected FLAME's keys, found {', '.join(sorted(map(str, table)))}"
        )
    array = table[key]
    if hasattr(array, "toarray"):
        array = array.toarray()
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise UserError(f"{path}: {key!r} is no numeric array ({type(array).__name__})")
    fits = array.ndim == len(shape) and all(
        s is None or s == n for s, n in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = tuple("any" if s is None else s for s in shape)
        raise UserError(f"{path}: {key!r} has shape {array.shape}, expected {wanted}")
    if not np.isfinite(as_float32(array)).all():
        raise UserError(f"{path}: {key!r} holds values that are not finite")
    return array


def _indices(array: np.ndarray, limit: int, what: str, path: Path) -> np.ndarray:
    array = array.astype(np.int64)
    if array.size and (array.min() < 0 or array.max() >= limit):
        raise UserError(f"{path}: {what} runs from {array.min()} to {array.max()}, expected 0 to {limit - 1}")
    return array


def _split_directions(table: dict, path: Path, num_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Shape and expression directions: two keys in the open head, one in FLAME."""
    directions = _array(table, "shapedirs", path, num_vertices, 3, None)
    if "exprdirs" in table:
        return directions, _array(table, "exprdirs", path, num_vertices, 3, None)
    if directions.shape[2] <= FLAME_NUM_SHAPE:
        raise UserError(
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
        raise UserError(
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
