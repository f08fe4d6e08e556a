"""Reading FLAME's pickles without running anything that is in them.

FLAME's ``generic_model.pkl`` holds NumPy arrays, SciPy sparse matrices and, in older releases, chumpy arrays.
The globals that such a file may name are listed here; `chumpy` itself is never imported: its objects become
inert shells whose array is then taken out.
"""

from __future__ import annotations

import codecs
import io
import pickle
from typing import Any

import numpy as np
from numpy.core import multiarray

from edit3dgs_ns.errors import UserError


class _Sealed(type):
    """A class that a pickle cannot alter (its BUILD opcode may set attributes of anything it can name)."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"an attempt to change {cls.__name__}.{name}")


class _Shell(metaclass=_Sealed):
    """An object of the pickle kept as data: its state, no behaviour."""

    def __init__(self, *args: Any):
        self.args = args
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def entry(self, *names: str) -> Any:
        """First entry of the state with one of the names, or None."""
        if isinstance(self.state, dict):
            for name in names:
                if name in self.state:
                    return self.state[name]
        return None


class _Chumpy(_Shell):
    """``chumpy.Ch``: the array is its entry ``x``."""


class _Sparse(_Shell):
    """``scipy.sparse`` matrices: ``data``, ``indices``, ``indptr`` and a shape."""

    by_column = True


class _SparseRows(_Sparse):
    by_column = False


def _array_scalar(dtype: np.dtype, data: bytes) -> Any:
    """NumPy's scalar constructor, for numbers only."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise pickle.UnpicklingError("a NumPy scalar that is no number")
    return multiarray.scalar(dtype, data)  # type: ignore[attr-defined]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """``_codecs.encode`` as protocol 2 uses it to carry bytes; no other codec."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return codecs.encode(text, encoding)


def _allowed_globals() -> dict[tuple[str, str], Any]:
    allowed: dict[tuple[str, str], Any] = {("_codecs", "encode"): _encode}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed[module, "_reconstruct"] = multiarray._reconstruct  # type: ignore[attr-defined]
        allowed[module, "scalar"] = _array_scalar
    for module in ("numpy.core.numeric", "numpy._core.numeric"):
        allowed[module, "_frombuffer"] = _from_buffer
    allowed["numpy", "ndarray"] = np.ndarray
    allowed["numpy", "dtype"] = np.dtype
    for layout, shell in (("csc", _Sparse), ("csr", _SparseRows)):
        for module in (f"scipy.sparse.{layout}", f"scipy.sparse._{layout}", "scipy.sparse"):
            for kind in ("matrix", "array"):
                allowed[module, f"{layout}_{kind}"] = shell
    allowed["chumpy.ch", "Ch"] = allowed["chumpy", "Ch"] = _Chumpy
    # How protocol 0 and 1 build instances; only for the shells above.
    for module in ("copy_reg", "copyreg"):
        allowed[module, "_reconstructor"] = _reconstructor
    for module in ("__builtin__", "builtins"):
        allowed[module, "object"] = object
        allowed[module, "set"] = set  # every chumpy array carries one, of names
    return allowed


def _from_buffer(data: Any, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """Arrays of protocol 5 (``numpy.core.numeric._frombuffer``)."""
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


def _reconstructor(cls: Any, base: Any, state: Any) -> _Shell:
    if not (isinstance(cls, type) and issubclass(cls, _Shell)) or base is not object:
        raise pickle.UnpicklingError("an instance of a class that is no array")
    return cls()


class _ArrayUnpickler(pickle.Unpickler):
    """Resolves the listed globals and nothing else."""

    allowed = _allowed_globals()

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of one global.

        Raises:
            pickle.UnpicklingError: it is not an array type.
        """
        try:
            return self.allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the global {module}.{name}, which is no array type") from None

    def persistent_load(self, pid: Any) -> Any:
        """Persistent references do not occur in FLAME files."""
        raise pickle.UnpicklingError("a persistent reference")


def parse_pickle(data: bytes, source: str, advice: str) -> Any:
    """The objects of a pickle: arrays, numbers, text and Python's containers.

    Args:
        data: the pickle (Python 2's latin1 strings are understood).
        source: file name for messages.
        advice: what to do about a pickle of other objects, for messages.

    Raises:
        ValueError: it is damaged, or names anything but array types.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{source}: refused to read this pickle: it holds {error}. Only NumPy arrays, scipy.sparse csc/csr matrices and "
            f"chumpy arrays are read. {advice}"
        ) from error
    except (
        Exception
    ) as error:  # a damaged pickle raises almost anything: IndexError, EOFError, UnicodeDecodeError, ...
        raise UserError(f"{source}: not a readable pickle ({type(error).__name__}: {error})") from error


def parse_flame_pickle(data: bytes, source: str) -> dict[str, Any]:
    """Builds a dictionary of arrays from a pickle's bytes, and array types only.

    Args:
        data: the pickle (Python 2's latin1 strings are understood).
        source: file name for messages.

    Returns:
        Key -> NumPy array (sparse and chumpy objects made dense), or the plain value.

    Raises:
        ValueError: the file names anything but array types, or is no pickled dictionary.
    """
    table = parse_pickle(data, source, "Get FLAME's own file from https://flame.is.tue.mpg.de.")
    if not isinstance(table, dict):
        raise UserError(f"{source}: holds a {type(table).__name__}, expected a dictionary with FLAME's keys")
    return {key: _plain(value, source, str(key)) for key, value in table.items()}


def _plain(value: Any, source: str, key: str) -> Any:
    """Shells -> dense arrays; everything else stays."""
    if isinstance(value, _Chumpy):
        inner = value.entry("x", "_value")
        if inner is None and isinstance(value.state, dict):
            inner = (
                value.state.get("_cache", {}).get("r")
                if isinstance(value.state.get("_cache"), dict)
                else None
            )
        if inner is None:
            raise UserError(
                f"{source}: {key!r} is a chumpy expression without stored values; export it as an array first"
            )
        return _plain(inner, source, key)
    if isinstance(value, _Sparse):
        return _dense(value, source, key)
    return value


def _dense(value: _Sparse, source: str, key: str) -> np.ndarray:
    """A compressed sparse matrix as a dense array, with its indices checked."""
    data, indices, indptr = (value.entry(name) for name in ("data", "indices", "indptr"))
    shape = value.entry("_shape", "shape")
    if (
        any(not isinstance(a, np.ndarray) for a in (data, indices, indptr))
        or not isinstance(shape, tuple)
        or len(shape) != 2
    ):
        raise UserError(f"{source}: {key!r} is a sparse matrix without data, indices, indptr and shape")
    rows, columns = (int(n) for n in shape)
    major, minor = (columns, rows) if value.by_column else (rows, columns)
    counts = np.diff(indptr)
    sound = (
        len(indptr) == major + 1
        and (counts >= 0).all()
        and counts.sum() == len(indices) == len(data)
        and (len(indices) == 0 or (indices.min() >= 0 and indices.max() < minor))
    )
    if not sound:
        raise UserError(f"{source}: {key!r} is a damaged sparse matrix")
    out = np.zeros((major, minor), dtype=data.dtype)
    np.add.at(out, (np.repeat(np.arange(major), counts), indices), data)
    return out.T.copy() if value.by_column else out
