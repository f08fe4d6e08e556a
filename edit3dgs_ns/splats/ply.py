"""Gaussians in PLY files: GaussianAvatars' bound ones and standard splats, in and out.

GaussianAvatars' `point_cloud.ply` is one list of vertices, all properties float32, little-endian:

    x y z  nx ny nz  f_dc_0..2  f_rest_0..44  opacity  scale_0..2  rot_0..3  binding_0

x y z and the log scales are in the frame of the bound triangle and in units of its size (`binding.py`), rot is wxyz, opacity
a logit, f_rest channel-major (all coefficients of red, then of green, then of blue), nx ny nz are zero and mean nothing,
binding_0 is the number of the face as a float. A standard splat (3D Gaussian Splatting) has the same properties without
binding_0, in world coordinates.

The reader is our own: bit for bit is simple for a table of floats, and a damaged file is told exactly what it lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.splats.binding import WorldGaussians
from edit3dgs_ns.splats.spherical_harmonics import degree_of
from edit3dgs_ns.splats.world_splats import WorldSplats

BINDING = "binding_0"
_MAX_HEADER = 64 * 1024
"""Bytes; GaussianAvatars' own headers have about 1600."""
_MOST_DIGITS = 12
"""Of the number of Gaussians."""
_END = b"end_header\n"
MIN_LOG_SCALE = -13.8155
"""Logarithm of the least standard deviation in a splat, just above 1e-6 m: editors fail on thinner ones, and a thousandth of a
millimetre is far below any pixel."""
_EXACT_FLOATS = 2**24
"""Whole numbers below this are exact as float32."""
_SH_COUNTS = {3 * ((degree + 1) ** 2 - 1): degree for degree in (1, 2, 3)}
"""Number of f_rest properties -> degree of the spherical harmonics."""


@dataclass(frozen=True)
class BoundGaussians:
    """The Gaussians of an avatar as they are trained and stored: in the frames of their triangles."""

    means: Float[Tensor, "gaussians 3"]
    """In units of the triangle's size."""
    scales: Float[Tensor, "gaussians 3"]
    """Logarithms of standard deviations in units of the triangle's size."""
    quats: Float[Tensor, "gaussians 4"]
    """wxyz, of any length."""
    features_dc: Float[Tensor, "gaussians 3"]
    """Spherical harmonics of degree 0, per channel."""
    features_rest: Float[Tensor, "gaussians coefficients 3"]
    """The degrees above, per coefficient and channel."""
    opacities: Float[Tensor, "gaussians 1"]
    """Logits."""
    binding: Int[Tensor, " gaussians"]
    """The face of each Gaussian."""

    def __len__(self) -> int:
        """Number of Gaussians."""
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics."""
        return degree_of(1 + self.features_rest.shape[1])


def read_bound_ply(path: Path) -> BoundGaussians:
    """Reads GaussianAvatars' `point_cloud.ply`; every float keeps its bits.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no PLY of bound Gaussians, truncated, or holding values that no avatar has.
    """
    table = _read_table(path, "GaussianAvatars' point_cloud.ply")
    coefficients = sum(name.startswith("f_rest_") for name in table)
    if coefficients not in _SH_COUNTS:
        raise UserError(
            f"{path}: has {coefficients} properties f_rest_*; expected {', '.join(map(str, _SH_COUNTS))} "
            f"(spherical harmonics of degree {', '.join(map(str, _SH_COUNTS.values()))})."
        )
    expected = bound_properties(coefficients)
    _check_properties(path, list(table), expected)

    for name in expected:
        _check_finite(path, name, table[name])
    binding = torch.from_numpy(_whole_numbers(path, table[BINDING]))
    return BoundGaussians(**_parameters(table, coefficients), binding=binding)


def read_splat_ply(path: Path, option: str) -> WorldSplats:
    """Reads a standard splat: 3D Gaussian Splatting's point_cloud.ply, or what `ns-export gaussian-splat` writes.

    Properties beyond a splat's (normals, for example) are ignored.

    Args:
        path: the file.
        option: the option that named the file, for messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no PLY of Gaussians, one of an avatar, truncated, or holding numbers that are not finite.
    """
    what = "a splat, such as `ns-export gaussian-splat` writes"
    table = _read_table(path, what)
    if BINDING in table:
        raise UserError(
            f"{option} {path}: has {BINDING}: an avatar, bound to a head; a background stands still. `edit3dgs import` and "
            "`edit3dgs export --format ply` make a splat of one timestep of it."
        )
    coefficients = sum(name.startswith("f_rest_") for name in table)
    needed = [name for name in bound_properties(coefficients)[:-1] if name not in ("nx", "ny", "nz")]
    missing = [name for name in needed if name not in table]
    if missing or coefficients not in (0, *_SH_COUNTS):
        problem = (
            f"has no property {', '.join(missing)}" if missing else f"has {coefficients} properties f_rest_*"
        )
        counts = ", ".join(map(str, (0, *_SH_COUNTS)))
        raise UserError(
            f"{option} {path}: {problem}; expected {what}: x, y, z, f_dc_*, opacity, scale_*, rot_* and {counts} f_rest_*."
        )
    return WorldSplats.from_parameters(_parameters(table, coefficients), f"{option} {path}")


def _parameters(table: dict[str, Float[np.ndarray, " rows"]], coefficients: int) -> dict[str, Tensor]:
    """Trained parameters of the Gaussians, in the shapes of BoundGaussians."""

    def columns(*names: str) -> Tensor:
        return torch.from_numpy(np.stack([table[name] for name in names], axis=1))

    count = len(table["x"])
    rest = columns(*_numbered("f_rest", coefficients)) if coefficients else torch.zeros(count, 0)
    return {
        "means": columns("x", "y", "z"),
        "scales": columns(*_numbered("scale", 3)),
        "quats": columns(*_numbered("rot", 4)),
        "features_dc": columns(*_numbered("f_dc", 3)),
        "features_rest": rest.reshape(count, 3, coefficients // 3).transpose(1, 2).contiguous(),
        "opacities": columns("opacity"),
    }


def check_binding(path: Path, gaussians: BoundGaussians, num_faces: int, head: Path) -> None:
    """Raises a ValueError when a Gaussian is bound to a face that the head at `head` does not have."""
    largest = int(gaussians.binding.max())
    if largest >= num_faces:
        row = int(gaussians.binding.argmax())
        raise UserError(
            f"{path}: Gaussian {row} is bound to face {largest}, but the head model {head} has {num_faces} faces (0 to "
            f"{num_faces - 1}). The avatar was made with another head model: name it by --flame-model. (FLAME has 9976 faces, "
            "10144 with the teeth that are added to it.)"
        )


def write_bound_ply(path: Path, gaussians: BoundGaussians) -> None:
    """Writes GaussianAvatars' `point_cloud.ply`, atomically; what `read_bound_ply` read comes out with the same bits."""
    assert int(gaussians.binding.max()) < _EXACT_FLOATS
    columns = _standard_columns(
        gaussians.means,
        gaussians.scales,
        gaussians.quats,
        gaussians.opacities,
        gaussians.features_dc,
        gaussians.features_rest,
    )
    columns.append(gaussians.binding[:, None].float())
    _write_table(path, bound_properties(3 * gaussians.features_rest.shape[1]), columns)


def write_splat_ply(
    path: Path,
    gaussians: WorldGaussians,
    opacities: Float[Tensor, "gaussians 1"],
    features_dc: Float[Tensor, "gaussians 3"],
    features_rest: Float[Tensor, "gaussians coefficients 3"],
) -> None:
    """Writes a standard splat that generic viewers read, atomically.

    Spherical harmonics are written as they are: GaussianAvatars' are not turned with the triangles but belong to world directions.
    Scales under a thousandth of a millimetre are raised to it (`MIN_LOG_SCALE`).

    Args:
        path: the file.
        gaussians: in world coordinates.
        opacities: logits.
        features_dc: spherical harmonics of degree 0.
        features_rest: the degrees above.
    """
    scales = gaussians.scales.log().clamp_min(MIN_LOG_SCALE)
    columns = _standard_columns(
        gaussians.means, scales, gaussians.quats, opacities, features_dc, features_rest
    )
    _write_table(path, bound_properties(3 * features_rest.shape[1])[:-1], columns)


def bound_properties(rest: int) -> list[str]:
    """The properties of a bound Gaussian in their order; `rest` of them are f_rest_*."""
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *_numbered("f_dc", 3),
        *_numbered("f_rest", rest),
        "opacity",
        *_numbered("scale", 3),
        *_numbered("rot", 4),
        BINDING,
    ]


def _standard_columns(
    means: Tensor,
    scales: Tensor,
    quats: Tensor,
    opacities: Tensor,
    features_dc: Tensor,
    features_rest: Tensor,
) -> list[Tensor]:
    rest = features_rest.transpose(1, 2).flatten(start_dim=1)
    return [means, torch.zeros_like(means), features_dc, rest, opacities, scales, quats]


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}_{index}" for index in range(count)]


# -- the file ---------------------------------------------------------------------------------------------------------


def _write_table(path: Path, names: list[str], columns: list[Tensor]) -> None:
    table = np.concatenate(
        [column.detach().cpu().numpy().astype("<f4", copy=False) for column in columns], axis=1
    )
    assert table.shape[1] == len(names)
    properties = "".join(f"property float {name}\n" for name in names)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(table)}\n{properties}end_header\n"
    with written_beside(path) as partial, partial.open("wb") as file:
        file.write(header.encode("ascii"))
        file.write(np.ascontiguousarray(table).data)


def _read_table(path: Path, what: str) -> dict[str, Float[np.ndarray, " rows"]]:
    """Property name -> its value in every vertex; `what` it should be, for messages."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; expected {what}.")
    with path.open("rb") as file:
        count, names, length = _read_header(path, file.read(_MAX_HEADER))
        expected, found = count * len(names) * 4, path.stat().st_size - length
        if found != expected:
            what = "it is truncated" if found < expected else "there is more in it than the header says"
            raise UserError(
                f"{path}: {what}. Its header promises {count} Gaussians of {len(names)} float properties ({expected} bytes); "
                f"{found} bytes follow the header. Copy or save the file again."
            )
        file.seek(length)
        rows = np.fromfile(file, dtype="<f4", count=count * len(names)).reshape(count, len(names))
    return {name: rows[:, number].astype(np.float32, copy=False) for number, name in enumerate(names)}


def _read_header(path: Path, start: bytes) -> tuple[int, list[str], int]:
    """Number of vertices, names of their properties, and how many bytes the header has."""
    if not start.startswith(b"ply\n"):
        raise UserError(f"{path}: no PLY file (it does not begin with 'ply').")
    text, end, _ = start.partition(_END)
    if not end:
        raise UserError(
            f"{path}: its header does not end ('end_header' is missing). The file is truncated or no PLY of Gaussians."
        )
    count, names = None, []
    for line in text.decode("latin1").splitlines()[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format":
            if words[1:] != ["binary_little_endian", "1.0"]:
                raise UserError(
                    f"{path}: its format is {' '.join(words[1:])!r}; expected 'binary_little_endian 1.0'."
                )
        elif (
            words[0] == "element"
            and count is None
            and len(words) == 3
            and words[1] == "vertex"
            and words[2].isdecimal()
            and len(words[2]) <= _MOST_DIGITS
        ):
            count = int(words[2])
        elif (
            words[0] == "property"
            and count is not None
            and len(words) == 3
            and words[1] in ("float", "float32")
        ):
            names.append(words[2])
        else:
            raise UserError(
                f"{path}: its header says {line!r}. Expected one 'element vertex N', and 'property float NAME' for each property."
            )
    if not count or not names:
        raise UserError(f"{path}: holds no Gaussians (element vertex {count}, {len(names)} properties).")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: its header names a property twice: {', '.join(names)}.")
    return count, names, len(text) + len(_END)


# -- what a file can have wrong -----------------------------------------------------------------------------------------


def _check_properties(path: Path, found: list[str], expected: list[str]) -> None:
    missing = [name for name in expected if name not in found]
    if missing:
        hint = ""
        if BINDING in missing:
            hint = " Without binding_0 it is a splat that does not move; an avatar's Gaussians are bound to faces."
        raise UserError(
            f"{path}: has no property {', '.join(missing)}; expected those of GaussianAvatars' point_cloud.ply.{hint}"
        )
    unknown = [name for name in found if name not in expected]
    if unknown:
        raise UserError(
            f"{path}: has the properties of GaussianAvatars' point_cloud.ply and {', '.join(unknown)}, which would be lost."
        )


def _check_finite(path: Path, name: str, values: Float[np.ndarray, " rows"]) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise UserError(
            f"{path}: {name} of Gaussian {bad[0]} is {values[bad[0]]} ({len(bad)} such values); expected finite numbers. The "
            "training that made this avatar diverged: take an earlier iteration."
        )


def _whole_numbers(path: Path, values: Float[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    bad = np.flatnonzero((values != np.floor(values)) | (values < 0) | (values >= _EXACT_FLOATS))
    if len(bad):
        raise UserError(
            f"{path}: {BINDING} of Gaussian {bad[0]} is {values[bad[0]]:.7g} ({len(bad)} such values); expected "
            "the number of a face: 0, 1, ..."
        )
    return values.astype(np.int64)
