"""FlameMotion: the parameters of a head model over time, and their files.

Reads and writes GaussianAvatars' ``flame_param.npz`` (one file, T frames) and VHAP's per-frame files. Poses
are axis-angle in radians; translations in metres. Between two frames, rotations follow the shortest great arc.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.flame.arrays import as_float32, finite_float32
from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.flame.rotations import slerp_axis_angle
from edit3dgs_ns.flame.teeth import FLAME_VERTICES, TEETH_VERTICES
from edit3dgs_ns.untrusted import read_npz

FRAME_WIDTHS = {"rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}
"""Fields with one row a frame, and the length of a row (``expr`` has a row too, of the model's length)."""
NEEDS_TEETH = (
    f"The offset is for FLAME with teeth ({FLAME_VERTICES + TEETH_VERTICES} vertices). They are added to any file with FLAME's own "
    "triangles; those of this file are others: give FLAME's own file."
)
"""What to do about parameters with teeth and a head of FLAME's size that got none."""
_KEYS = ("shape", "static_offset", "expr", *FRAME_WIDTHS)


@dataclass(frozen=True)
class FlameMotion:
    """One actor's identity and the poses of T timesteps (float32)."""

    shape: Float[Tensor, " S"]
    """Shape coefficients."""
    static_offset: Float[Tensor, "V 3"] | None
    """Displacement of the rest vertices (metres), or None."""
    expr: Float[Tensor, "T E"]
    """Expression coefficients."""
    rotation: Float[Tensor, "T 3"]
    """Global rotation."""
    neck_pose: Float[Tensor, "T 3"]
    """Rotation of the head on the neck."""
    jaw_pose: Float[Tensor, "T 3"]
    """Rotation of the jaw."""
    eyes_pose: Float[Tensor, "T 6"]
    """Rotation of the left eye, then of the right eye."""
    translation: Float[Tensor, "T 3"]
    """Metres."""

    def __post_init__(self) -> None:
        if self.shape.ndim != 1 or self.expr.ndim != 2:
            raise UserError(
                f"shape {tuple(self.shape.shape)} and expr {tuple(self.expr.shape)}: expected (S,) and (T, E)"
            )
        frames = self.expr.shape[0]
        for name, width in FRAME_WIDTHS.items():
            found = tuple(getattr(self, name).shape)
            if found != (frames, width):
                raise UserError(
                    f"{name} has shape {found}, expected {(frames, width)} for {frames} frames of expr"
                )

    def __len__(self) -> int:
        """T."""
        return self.expr.shape[0]

    @classmethod
    def zeros(cls, frames: int, num_shape: int, num_expr: int) -> FlameMotion:
        """The neutral head, standing still for a number of frames."""
        rows = {name: torch.zeros(frames, width) for name, width in FRAME_WIDTHS.items()}
        return cls(
            shape=torch.zeros(num_shape), static_offset=None, expr=torch.zeros(frames, num_expr), **rows
        )

    # --- files ---

    @classmethod
    def load(cls, path: str | Path) -> FlameMotion:
        """Reads ``flame_param.npz`` as GaussianAvatars writes it, or one per-frame file of VHAP.

        ``dynamic_offset`` is ignored, as GaussianAvatars does.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a key is missing, has another shape or holds values that are not finite.
        """
        path = Path(path)
        table = _read_table(path)
        try:
            return cls(
                shape=_tensor(table, "shape", path).reshape(-1),
                static_offset=_static_offset(table, path),
                expr=_rows(table, "expr", path),
                **{name: _rows(table, name, path) for name in FRAME_WIDTHS},
            )
        except UserError as error:
            raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error

    @classmethod
    def from_frames(cls, paths: Sequence[str | Path]) -> FlameMotion:
        """Joins VHAP's per-frame files, in the given order; identity comes from the first.

        Raises:
            FileNotFoundError, ValueError: as `load_frame`; or no files, or different lengths of a field.
        """
        if not paths:
            raise UserError("no per-frame FLAME parameter files were given, expected at least one")
        return cls.concat([cls.load_frame(path) for path in paths], same_identity=False)

    @classmethod
    def load_frame(cls, path: str | Path) -> FlameMotion:
        """Reads a file that stands for one timestep.

        Raises:
            FileNotFoundError, ValueError: as `load`; or the file has no rows or several: all later timesteps would shift.
        """
        motion = cls.load(path)
        if len(motion) != 1:
            raise UserError(
                f"{path}: has {len(motion)} rows, expected 1: the file stands for one timestep. Export the tracking again, or name "
                "a file with all timesteps once, as 'flame_param_path' at the top level of the transforms files."
            )
        return motion

    def save(self, path: str | Path) -> None:
        """Writes ``flame_param.npz`` with GaussianAvatars' keys and shapes, atomically."""
        path = Path(path)
        table = {
            name: getattr(self, name).detach().cpu().numpy() for name in ("shape", "expr", *FRAME_WIDTHS)
        }
        if self.static_offset is not None:
            table["static_offset"] = self.static_offset.detach().cpu().numpy()[None]
        with written_beside(path) as partial, partial.open("wb") as file:
            np.savez(file, **table)

    # --- frames ---

    def pose(self, frames: slice | Sequence[int] | Tensor = slice(None)) -> FlamePose:
        """Expression and pose of some frames (all by default), for `ShapedHead.posed`."""
        return FlamePose(**{name: getattr(self, name)[frames] for name in ("expr", *FRAME_WIDTHS)})

    def slice(
        self, start: int | None = None, stop: int | None = None, step: int | None = None
    ) -> FlameMotion:
        """The frames ``start:stop:step``, same identity."""
        return self.with_pose(self.pose(slice(start, stop, step)))

    def with_pose(self, pose: FlamePose) -> FlameMotion:
        """This identity with other frames."""
        return dataclasses.replace(self, **{name: getattr(pose, name) for name in ("expr", *FRAME_WIDTHS)})

    def interpolate(self, t: float | Float[Tensor, " K"]) -> FlamePose:
        """The pose at normalised times.

        Args:
            t: 0 is the first frame, 1 the last; values outside are clamped. A number gives one frame.

        Returns:
            The K poses: expression and translation linearly blended, rotations along the great arc.
        """
        if len(self) == 0:
            raise UserError("cannot interpolate a motion without frames")
        place = torch.as_tensor(t, dtype=self.expr.dtype, device=self.expr.device).reshape(-1).clamp(0, 1) * (
            len(self) - 1
        )
        before = place.floor().long().clamp(0, max(len(self) - 2, 0))
        after = (before + 1).clamp(max=len(self) - 1)
        share = (place - before)[:, None]
        out = {}
        for name in ("expr", *FRAME_WIDTHS):
            a, b = getattr(self, name)[before], getattr(self, name)[after]
            if name in ("expr", "translation"):
                out[name] = a + share * (b - a)
            else:
                mixed = slerp_axis_angle(a.unflatten(1, (-1, 3)), b.unflatten(1, (-1, 3)), share)
                out[name] = mixed.flatten(1)
        return FlamePose(**out)

    @staticmethod
    def concat(motions: Sequence[FlameMotion], same_identity: bool = True) -> FlameMotion:
        """Joins motions in time.

        Args:
            motions: at least one.
            same_identity: refuse motions whose shape or static offset differ from the first's.

        Raises:
            ValueError: nothing to join, another number of coefficients, or another identity.
        """
        if not motions:
            raise UserError("no motions to join, expected at least one")
        first = motions[0]
        for i, motion in enumerate(motions):
            if motion.expr.shape[1] != first.expr.shape[1] or motion.shape.shape != first.shape.shape:
                raise UserError(
                    f"motion {i} has {motion.shape.shape[0]} shape and {motion.expr.shape[1]} expression "
                    "coefficients, the "
                    f"first has {first.shape.shape[0]} and {first.expr.shape[1]}: they belong to different "
                    "head models"
                )
            if same_identity and not _same_identity(first, motion):
                raise UserError(
                    f"motion {i} is another identity than the first; edit3dgs_ns.flame.retarget plays another "
                    "actor's motion"
                )
        rows = {name: torch.cat([getattr(m, name) for m in motions]) for name in ("expr", *FRAME_WIDTHS)}
        return FlameMotion(shape=first.shape, static_offset=first.static_offset, **rows)

    @property
    def needs_teeth(self) -> bool:
        """Whether the static offset is for FLAME with the teeth that VHAP and GaussianAvatars add."""
        offset = self.static_offset
        return offset is not None and len(offset) == FLAME_VERTICES + TEETH_VERTICES

    def with_teeth_offset(self, num_vertices: int) -> FlameMotion:
        """This motion for a head of `num_vertices`: an offset that was tracked on FLAME without teeth is padded.

        The teeth's own offset is zero, as in GaussianAvatars. Offsets for any other topology are left as they are.
        """
        offset = self.static_offset
        if offset is None or (len(offset), num_vertices) != (FLAME_VERTICES, FLAME_VERTICES + TEETH_VERTICES):
            return self
        padded = torch.cat([offset, offset.new_zeros(TEETH_VERTICES, 3)])
        return dataclasses.replace(self, static_offset=padded)

    def to(self, device: torch.device | str) -> FlameMotion:
        """A copy on another device."""
        moved = {
            f.name: value.to(device)
            for f in dataclasses.fields(self)
            if (value := getattr(self, f.name)) is not None
        }
        return dataclasses.replace(self, **moved)


def _same_identity(a: FlameMotion, b: FlameMotion) -> bool:
    if (a.static_offset is None) != (b.static_offset is None):
        return False
    same = torch.allclose(a.shape, b.shape, atol=1e-5)
    if a.static_offset is not None and b.static_offset is not None:
        same = same and a.static_offset.shape == b.static_offset.shape
        same = same and torch.allclose(a.static_offset, b.static_offset, atol=1e-6)
    return same


def _read_table(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; expected an npz of FLAME parameters")
    return read_npz(path, _KEYS)  # not the rest: a dynamic_offset holds 60 KB for every timestep


def _tensor(table: dict[str, np.ndarray], key: str, path: Path) -> Tensor:
    if key not in table:
        raise UserError(f"{path}: has no {key!r}; found {', '.join(sorted(table)) or 'nothing'}")
    array = np.asarray(table[key])
    values = finite_float32(array)
    if values is None:
        raise UserError(f"{path}: {key!r} is not an array of finite numbers{_where_not_finite(array)}")
    return torch.from_numpy(values)


def _where_not_finite(array: np.ndarray) -> str:
    """Message about the frames where a tracker lost the face: their number, and the first."""
    if array.dtype.kind not in "fiu" or array.ndim < 2:
        return ""
    rows = np.flatnonzero(~np.isfinite(as_float32(array)).reshape(len(array), -1).all(axis=1))
    return (
        f": {len(rows)} of {len(array)} frames are not, the first is frame {rows[0]}. The tracker lost the face there: track "
        "that part again, or cut it out"
    )


def _rows(table: dict[str, np.ndarray], key: str, path: Path) -> Tensor:
    """(T, width); a single frame may come without its first axis."""
    values = _tensor(table, key, path)
    return values[None] if values.ndim == 1 else values


def _static_offset(table: dict[str, np.ndarray], path: Path) -> Tensor | None:
    if "static_offset" not in table:
        return None
    offset = _tensor(table, "static_offset", path)
    offset = offset[0] if offset.ndim == 3 and offset.shape[0] == 1 else offset
    if offset.ndim != 2 or offset.shape[1] != 3:
        raise UserError(
            f"{path}: 'static_offset' has shape {tuple(offset.shape)}, expected (1, V, 3) or (V, 3)"
        )
    return offset
