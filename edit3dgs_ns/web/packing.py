"""Packs arrays for a web page, and unpacks them: quantised to steps below what is visible, and gzipped.

    gzip of:  uint32 length of the header | header (JSON) | the arrays, one after the other

Of each array the header says name, dtype (int16, uint32 or float32), shape and `step` (a stored 1 means that
much). The bytes of an array lie in planes, all lowest bytes first: the higher ones hardly vary, and gzip makes nothing of
them. `assets/reader.js` is the other reader.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from edit3dgs_ns.errors import UserError

_LARGEST = 32767
_KINDS: dict[str, np.dtype[Any]] = {
    "int16": np.dtype("<i2"),
    "uint32": np.dtype("<u4"),
    "float32": np.dtype("<f4"),
}


@dataclass(frozen=True)
class Quantised:
    """Numbers as whole multiples of a step."""

    values: Int[np.ndarray, "*shape"]
    """int16; or uint32 or float32 with a step of 1."""
    step: float = 1.0

    def restored(self) -> Float[np.ndarray, "*shape"]:
        """The numbers, each within half a step of the original."""
        return self.values * np.float64(self.step)


def quantise(values: Float[np.ndarray, "*shape"], step: float) -> Quantised:
    """Numbers quantised to `step`, or to a larger step where int16 would overflow.

    Raises:
        ValueError: a number is not finite.
    """
    values = _finite(values)
    step = max(step, float(np.abs(values).max(initial=0.0)) / _LARGEST)
    return Quantised(np.rint(values / step).astype(np.int16), step)


def exact(values: Float[np.ndarray, "*shape"]) -> Quantised:
    """Numbers in float32, for small arrays whose errors would add up.

    Raises:
        ValueError: a number is not finite.
    """
    return Quantised(_finite(values).astype(np.float32))


def _finite(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise UserError("The avatar holds numbers that are not finite (NaN or infinity); it cannot be shown.")
    return values


def indices(values: Int[np.ndarray, "*shape"]) -> Quantised:
    """Indices of vertices or faces, without quantisation."""
    return Quantised(np.asarray(values).astype(np.uint32))


def pack(arrays: Mapping[str, Quantised], facts: Mapping[str, Any]) -> bytes:
    """The arrays and further facts (JSON values) as one gzipped file."""
    entries, planes = [], []
    for name, array in arrays.items():
        kind = array.values.dtype.name
        entries.append(
            {
                "name": name,
                "dtype": kind,
                "shape": array.values.shape,
                "step": array.step,
            }
        )
        planes.append(_planes(array, _KINDS[kind]))
    header = json.dumps({**facts, "arrays": entries}).encode()
    # No time stamp: the same avatar gives the same bytes.
    return gzip.compress(b"".join([struct.pack("<I", len(header)), header, *planes]), mtime=0)


def unpack(packed: bytes) -> tuple[dict[str, Quantised], dict[str, Any]]:
    """The arrays and facts of a packed file."""
    content = gzip.decompress(packed)
    (length,) = struct.unpack_from("<I", content)
    header = json.loads(content[4 : 4 + length])
    arrays, at = {}, 4 + length
    for entry in header.pop("arrays"):
        kind = _KINDS[entry["dtype"]]
        size = int(np.prod(entry["shape"])) * kind.itemsize
        values = _from_planes(content[at : at + size], kind, tuple(entry["shape"]))
        arrays[entry["name"]] = Quantised(values, entry["step"])
        at += size
    return arrays, header


def _planes(array: Quantised, kind: np.dtype) -> bytes:
    rows = np.ascontiguousarray(array.values, kind).reshape(-1, 1).view(np.uint8)
    return rows.T.tobytes()


def _from_planes(data: bytes, kind: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    planes = np.frombuffer(data, np.uint8).reshape(kind.itemsize, -1)
    return np.ascontiguousarray(planes.T).view(kind).reshape(shape)
