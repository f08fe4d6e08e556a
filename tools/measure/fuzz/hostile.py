"""Strategies that spoil sound files: their bytes, or the values in them."""

from __future__ import annotations

import io
import json
import math
import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

CANARY = "a_file_of_the_fuzzer_was_run"
"""Made in the working directory by files that try to run code."""
_RAW = {
    "@1e400": "1e400",
    "@-1e400": "-1e400",
    "@digits": "1" + "0" * 5000,
    "@deep": "[" * 50_000 + "]" * 50_000,
    "@surrogate": r'"\ud800"',
}
"""Text that Python's JSON does not write."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 1e300, -1e300, 1e-300, 10**30, -(10**30), 2**63, 0.5, math.nan, math.inf, -math.inf,
    "", "x", "NaN", "1", "\0", "a" * 5000, "../../../x", "/etc/passwd", "C:\\x", "[/]", "{}", "\x1b[31m", "é\u2028",
    [], {}, [[]], [None], [1, 2], [[1, 2], [3]], {"x": 1}, [math.nan] * 3, *_RAW,
)  # fmt: skip


class Runs:
    """What a pickle may name to run code when it is read."""

    def __reduce__(self) -> Any:
        return open, (CANARY, "w")


@st.composite
def damaged(draw: DrawFn, sound: bytes) -> bytes:
    """A file cut off, with bytes changed, removed, repeated or put in; or any bytes at all."""
    kind = draw(st.sampled_from(["cut", "change", "insert", "remove", "repeat", "any"]))
    if kind == "any":
        return draw(st.binary(max_size=300))
    at = draw(st.integers(0, len(sound)))
    some = draw(st.binary(min_size=1, max_size=8))
    length = draw(st.sampled_from([1, 8, 64, 1024]))
    return {
        "cut": sound[:at],
        "change": sound[:at] + some + sound[at + len(some) :],
        "insert": sound[:at] + some + sound[at:],
        "remove": sound[:at] + sound[at + length :],
        "repeat": sound[:at] + sound[max(at - length, 0) :],
    }[kind]


@st.composite
def spoilt(draw: DrawFn, sound: Any, values: tuple[Any, ...] = VALUES) -> Any:
    """A nest of dicts and lists with one to three of its entries replaced, removed, repeated or put in."""
    content = [deepcopy(sound)]  # so that the whole can be replaced, too
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(_places(content)))
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "repeat"]))
        value = deepcopy(draw(st.sampled_from(values)))
        if kind == "remove" and holder is not content:
            del holder[key]
        elif kind == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(["x", "", "type", "\0"]))] = value
        elif kind == "repeat" and isinstance(holder, list):
            holder.insert(key, deepcopy(holder[key]))
        else:
            holder[key] = value
    return content[0]


def _places(content: Any) -> list[tuple[Any, Any]]:
    keys = content.keys() if isinstance(content, dict) else range(len(content))
    found = [(content, key) for key in keys]
    for _, key in tuple(found):
        if isinstance(content[key], (dict, list)):
            found += _places(content[key])
    return found


def json_files(sound: Any, values: tuple[Any, ...] = VALUES) -> SearchStrategy[bytes]:
    """JSON with other values than a reader expects, and JSON that is damaged."""
    return st.one_of(spoilt(sound, values).map(json_bytes), damaged(json_bytes(sound)))


def json_bytes(content: Any) -> bytes:
    """JSON, with numbers and nesting that Python would not write."""
    text = json.dumps(content)
    for name, raw in _RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text.encode()


@st.composite
def arrays(draw: DrawFn, sound: np.ndarray) -> Any:
    """An array of another shape or type, with values that no tracker writes; or none at all."""
    kind = draw(st.sampled_from(["value", "value", "shape", "type", "object", "scalar", "text"]))
    array = np.array(sound, dtype=np.float64 if sound.dtype.kind == "f" else sound.dtype)
    if kind == "value" and array.size:
        value = draw(st.sampled_from([math.nan, math.inf, 1e39, -1e300, 10**15, -1, 0, 2**31]))
        with np.errstate(all="ignore"):
            array.flat[draw(st.integers(0, array.size - 1))] = (
                value
                if array.dtype.kind == "f"
                else int(min(max(value, -(2**31)), 2**31 - 1) if math.isfinite(value) else -1)
            )
        return array
    if kind == "shape":
        shape = list(array.shape) or [1]
        place = draw(st.integers(0, len(shape) - 1))
        shape[place] = draw(st.sampled_from([0, 1, 2, shape[place] + 1, 2 * shape[place]]))
        new = np.resize(array, shape)
        return draw(st.sampled_from([new, new[None], new.reshape(-1), new.T]))
    if kind == "type":
        return array.astype(draw(st.sampled_from(["int8", "bool", "complex64", "float16", "S4", "uint64"])))
    return {"object": np.array([None, {}], dtype=object), "text": np.array("x")}.get(kind, np.float64(1.0))


@st.composite
def spoilt_table(draw: DrawFn, sound: dict[str, np.ndarray]) -> dict[str, Any]:
    """Named arrays of which one or two are spoilt or gone."""
    table: dict[str, Any] = dict(sound)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(table) or ["x"]))
        if draw(st.integers(0, 4)) == 0:
            table.pop(name, None)
        else:
            table[name] = draw(arrays(sound.get(name, np.zeros(3))))
    return table


def npz_files(sound: dict[str, np.ndarray]) -> SearchStrategy[bytes]:
    """npz archives with other arrays than a reader expects, and damaged ones."""
    return st.one_of(
        spoilt_table(sound).map(npz_bytes),
        damaged(npz_bytes(sound)),
        st.sampled_from(sorted(sound)).map(lambda name: npz_bytes(sound, huge=name)),
    )


def npz_bytes(table: dict[str, Any], huge: str | None = None) -> bytes:
    """An npz archive; the array `huge` says that it has 10^12 entries."""
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in table.items():
            entry = io.BytesIO()
            if name == huge:
                header = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
                np.lib.format.write_array_header_1_0(entry, header)
            else:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=True)
            archive.writestr(f"{name}.npy", entry.getvalue())
    return file.getvalue()


def pickle_files(
    sound: dict[str, np.ndarray], write: Callable[[Any], bytes] = pickle.dumps
) -> SearchStrategy[bytes]:
    """Pickles with other values than a reader expects, damaged ones, and ones that would run code."""
    return st.one_of(
        spoilt_table(sound).map(write),
        damaged(write(sound)),
        st.sampled_from([Runs(), {**sound, "x": Runs()}, [Runs()], 3, None, "x", [], {}]).map(write),
    )


@st.composite
def spoilt_text(draw: DrawFn, sound: str, pieces: tuple[str, ...]) -> bytes:
    """Text in which one to three words, or lines, are others."""
    lines = sound.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        number = draw(st.integers(0, len(lines) - 1))
        piece = draw(st.sampled_from(pieces))
        head, found, _ = lines[number].rpartition(draw(st.sampled_from([": ", " ", ",", "= "])))
        lines[number] = f"{head}{found}{piece}" if found else piece
    return "\n".join([*lines, ""]).encode("utf-8", "surrogatepass")
