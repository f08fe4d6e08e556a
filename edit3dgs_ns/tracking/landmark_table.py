"""Which point of a head model each MediaPipe landmark is: a table, made once by `tools.data.landmark_table`.

A landmark lies in a triangle at barycentric coordinates. Detectors are not exact about it: seen from the side, a landmark slides
over the surface (the cheeks' contour most), and the detector leans towards its mean face: of a person's features and of an
expression it shows another share than the head model does. The table holds that, too, as a displacement that is quadratic in the
direction to the camera and linear in shape, expression and the jaw's opening. What depends on the face belongs to one head model's
coefficients: tables of other head models have no such modes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, Int

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.tracking.detector import FIRST_IRIS, NUM_LANDMARKS

OPEN_HEAD_TABLE = Path(__file__).parent / "data" / "open_head_landmarks.npz"
DEFAULT_SPREAD = 0.002
"""Metres, for a table that does not say how well each landmark is found: about the median of ours."""
VIEW_TERMS = 5
"""Of a direction to the camera (`view_terms`)."""
ROWS = ("landmarks", "faces", "barycentric", "offsets", "view_offsets", "modes", "spread")
"""Fields with one entry a landmark."""


@dataclass(frozen=True)
class LandmarkTable:
    """L of the detector's landmarks on one head model."""

    landmarks: Int[np.ndarray, " L"]
    """Their numbers in the detector's output, 0 to 477."""
    faces: Int[np.ndarray, " L"]
    """Triangle of the head model."""
    barycentric: Float[np.ndarray, "L 3"]
    offsets: Float[np.ndarray, "L 3"]
    """Displacement from that point, in the head's frame, seen from the front: metres."""
    view_offsets: Float[np.ndarray, "L 3 V"]
    """Change of the displacement with the `view_terms` of the direction to the camera."""
    modes: Float[np.ndarray, "L 3 R"]
    """Displacements, metres, of which a face shows a sum: none (R = 0) for a table that knows of no face."""
    by_face: Float[np.ndarray, "R K"]
    """How much of each mode: for every shape coefficient, every expression coefficient, and the sine of the jaw's opening."""
    spread: Float[np.ndarray, " L"]
    """Standard deviation of what remains, metres."""
    source: Path

    def thinned(self) -> LandmarkTable:
        """Every second landmark of the face, and all of the irises: neighbours err alike, and half of them cost half."""
        kept = (self.landmarks % 2 == 0) | (self.landmarks >= FIRST_IRIS)
        kept |= len(self.landmarks) <= 200  # a small table (FLAME's has 105) is chosen already
        return replace(self, **{name: getattr(self, name)[kept] for name in ROWS})

    def displacements(self, towards: Float[np.ndarray, "T 3"]) -> Float[np.ndarray, "T L 3"]:
        """What the landmarks slide by in some views, in the head's frame: metres; without what depends on the face.

        Args:
            towards: unit directions to the camera, in the head's frame.
        """
        return self.offsets + np.einsum("liv,tv->tli", self.view_offsets, view_terms(towards))

    def face_displacements(self, num_shape: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of the displacement for shape (L, 3, S), expression (L, 3, E) and the sine of the jaw's opening (L, 3)."""
        by_face = np.einsum("lir,rk->lik", self.modes, self.by_face)
        return by_face[..., :num_shape], by_face[..., num_shape:-1], by_face[..., -1]

    def save(self, path: Path | BinaryIO, head: FlameAssets) -> None:
        """Write the table as an npz, with the topology that it belongs to."""
        np.savez_compressed(
            path,
            topology=np.array(topology_of(head)),
            landmarks=self.landmarks.astype(np.int16),
            faces=self.faces.astype(np.int32),
            **{
                name: getattr(self, name).astype(np.float32)
                for name in ("barycentric", "offsets", "view_offsets", "spread")
            },
            # A thousandth of their millimetres is more than anybody knows.
            **{name: getattr(self, name).astype(np.float16) for name in ("modes", "by_face")},
        )


def view_terms(towards: Float[np.ndarray, "T 3"]) -> Float[np.ndarray, "T V"]:
    """x, y, x^2, y^2 and xy of unit directions in the head's frame: what its displacements are linear in."""
    x, y = towards[:, 0], towards[:, 1]
    return np.stack([x, y, x * x, y * y, x * y], axis=1)


def topology_of(head: FlameAssets) -> str:
    """A check sum of the triangles: triangle numbers mean nothing on another mesh."""
    return hashlib.sha256(np.ascontiguousarray(head.faces, np.int64).tobytes()).hexdigest()[:16]


def load_landmark_table(head: FlameAssets, path: Path | None = None) -> LandmarkTable:
    """Read a table for a head model; `landmark_transfer.landmark_table_of` finds the right one.

    Args:
        head: the head model that is fitted.
        path: a table of ours, or FLAME's `mediapipe_landmark_embedding.npz`; None takes the embedded one of the open head.

    Raises:
        MissingFileError: there is none.
        UserError: it is damaged, or belongs to another head.
    """
    path = path or OPEN_HEAD_TABLE
    if not path.is_file():
        raise MissingFileError(
            f"{path}: no such file. Expected the table of MediaPipe's landmarks on the head model."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a table of landmarks ({error}).") from error
    table = _of_flame(content, path) if "lmk_face_idx" in content else _of_ours(content, path, head)
    _check(table, head)
    return table


def _of_ours(content: dict[str, np.ndarray], path: Path, head: FlameAssets) -> LandmarkTable:
    wanted = (
        "topology",
        "landmarks",
        "faces",
        "barycentric",
        "offsets",
        "view_offsets",
        "spread",
        "modes",
        "by_face",
    )
    missing = [name for name in wanted if name not in content]
    if missing:
        raise UserError(f"{path}: not a table of landmarks: it has no {', '.join(missing)}.")
    if str(content["topology"]) != topology_of(head):
        raise UserError(f"{path}: belongs to another head model than {head.source}.")
    arrays = {name: content[name].astype(np.float64) for name in wanted[3:]}
    return LandmarkTable(
        content["landmarks"].astype(np.int64), content["faces"].astype(np.int64), **arrays, source=path
    )


def _of_flame(content: dict[str, np.ndarray], path: Path) -> LandmarkTable:
    missing = [name for name in ("lmk_b_coords", "landmark_indices") if name not in content]
    if missing:
        raise UserError(f"{path}: not FLAME's landmark embedding: it has no {', '.join(missing)}.")
    count = len(content["lmk_face_idx"])
    return LandmarkTable(
        content["landmark_indices"].astype(np.int64).reshape(-1),
        content["lmk_face_idx"].astype(np.int64).reshape(-1),
        content["lmk_b_coords"].astype(np.float64),
        np.zeros((count, 3)),
        np.zeros((count, 3, VIEW_TERMS)),
        np.zeros((count, 3, 0)),
        np.zeros((0, 0)),
        np.full(count, DEFAULT_SPREAD),
        path,
    )


def face_terms(head: FlameAssets) -> int:
    """Columns of `by_face` for a head model."""
    return head.shapedirs.shape[2] + head.exprdirs.shape[2] + 1


def _check(table: LandmarkTable, head: FlameAssets) -> None:
    count = len(table.landmarks)
    rules = {
        f"landmark numbers from 0 to {NUM_LANDMARKS - 1}": (
            (table.landmarks >= 0) & (table.landmarks < NUM_LANDMARKS)
        ).all(),
        f"triangles below {len(head.faces)}": ((table.faces >= 0) & (table.faces < len(head.faces))).all(),
        "three barycentric coordinates a landmark": table.barycentric.shape == (count, 3),
        "a triangle for each landmark": len(table.faces) == count,
        "finite numbers": all(
            np.isfinite(values).all() for values in (getattr(table, name) for name in (*ROWS[2:], "by_face"))
        ),
        f"displacements by {face_terms(head)} coefficients of the face": not table.modes.shape[2]
        or table.by_face.shape == (table.modes.shape[2], face_terms(head)),
        "positive spreads": bool((table.spread > 0).all()),
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken or not count:
        raise UserError(f"{table.source}: expected {broken[0] if broken else 'at least one landmark'}.")
