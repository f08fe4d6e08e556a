"""Named regions of a head model: which faces and vertices are eyes, mouth, lips, teeth, nose, ...

The open head carries its regions. FLAME's come from the ``FLAME_masks.pkl`` that its authors publish beside
the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.safe_pickle import parse_flame_pickle

FLAME_MASKS_NAME = "FLAME_masks.pkl"
MASKS_HINT = (
    f'Regions of FLAME other than its teeth come from {FLAME_MASKS_NAME} ("FLAME Vertex Masks", https://flame.is.tue.mpg.de): put '
    "it beside FLAME's file."
)
"""What to do about a region that FLAME lacks without its masks."""
FLAME_MASK_NAMES: Mapping[str, tuple[str, ...]] = {
    "eye_left": ("left_eyeball",),
    "eye_right": ("right_eyeball",),
    "eyes": ("left_eyeball", "right_eyeball"),
    "eyelids": ("left_eye_region", "right_eye_region"),
    "ears": ("left_ear", "right_ear"),
    "lips": ("lips",),
    "nose": ("nose",),
    "scalp": ("scalp",),
    "neck": ("neck", "boundary"),
    "face": ("face",),
    "forehead": ("forehead",),
}
"""Our region -> the masks of FLAME that make it."""


def region_faces(assets: FlameAssets, *names: str) -> np.ndarray:
    """Sorted indices of the faces in any of the named regions.

    Raises:
        ValueError: the model has no such region.
    """
    return _union(assets.face_regions, names, assets)


def region_vertices(assets: FlameAssets, *names: str) -> np.ndarray:
    """Sorted indices of the vertices in any of the named regions.

    Raises:
        ValueError: the model has no such region.
    """
    return _union(assets.vertex_regions, names, assets)


def _union(regions: dict[str, np.ndarray], names: tuple[str, ...], assets: FlameAssets) -> np.ndarray:
    for name in names:
        if name not in regions:
            known = ", ".join(sorted(regions)) or "none"
            hint = f" {MASKS_HINT}" if assets.name == "flame" and name in FLAME_MASK_NAMES else ""
            raise UserError(f"{assets.source}: has no region {name!r} (known: {known}).{hint}")
    return np.unique(np.concatenate([regions[name] for name in names])) if names else np.zeros(0, np.int64)


def faces_of_vertices(faces: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Indices of the faces whose three vertices all belong to ``vertices``."""
    return np.flatnonzero(np.isin(faces, vertices).all(1))


def with_flame_masks(assets: FlameAssets, path: str | Path) -> FlameAssets:
    """Adds FLAME's regions to FLAME's model.

    Args:
        assets: the model that the masks were made for.
        path: ``FLAME_masks.pkl``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no set of masks, or is for another model.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(
            f"{path}: no such file; expected FLAME_masks.pkl from https://flame.is.tue.mpg.de"
        )
    masks = {
        key: np.unique(np.asarray(rows).astype(np.int64))
        for key, rows in parse_flame_pickle(path.read_bytes(), str(path)).items()
    }
    vertex_regions = dict(assets.vertex_regions)
    for region, names in FLAME_MASK_NAMES.items():
        if all(name in masks for name in names):
            rows = np.unique(np.concatenate([masks[name] for name in names]))
            if len(rows) and (rows[0] < 0 or rows[-1] >= assets.num_vertices):
                raise UserError(
                    f"{path}: region {region!r} names vertex {rows[-1]}, but {assets.source} has "
                    f"{assets.num_vertices}"
                )
            vertex_regions[region] = rows
    if not set(vertex_regions) & set(FLAME_MASK_NAMES):
        raise UserError(
            f"{path}: holds none of FLAME's masks; found {', '.join(map(str, masks)) or 'nothing'}"
        )
    face_regions = dict(assets.face_regions)
    face_regions.update(
        {name: faces_of_vertices(assets.faces, rows) for name, rows in vertex_regions.items()}
    )
    return dataclasses.replace(assets, vertex_regions=vertex_regions, face_regions=face_regions)
