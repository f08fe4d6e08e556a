"""Reading files that may come from anybody: JSON, and NumPy's archives."""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edit3dgs_ns.errors import UserError

if TYPE_CHECKING:
    import numpy as np

LARGEST_NPZ = 4 * 2**30
"""Bytes of the arrays of an archive, unpacked: a small archive can claim to hold any number of them."""


def parse_json(text: str) -> Any:
    """`json.loads`, whose only error is ValueError, and which gives no text that cannot be written again.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has half of a surrogate pair in it.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if "\\ud" in text.lower():
        json.dumps(content, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return content


def read_npz(path: Path, wanted: Container[str] | None = None, hint: str = "") -> dict[str, np.ndarray]:
    """Arrays of an npz archive by name; no Python objects are built.

    Args:
        path: the archive.
        wanted: names to read, of those that are there; None for all.
        hint: what to do, for the message.

    Raises:
        UserError: it is damaged, no npz, holds Python objects or more than `LARGEST_NPZ`.
    """
    import numpy as np  # `edit3dgs history` reads JSON, and starts without NumPy

    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = [key for key in archive.files if wanted is None or key in wanted]
            sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.zip.infolist()}
            size = sum(sizes.get(key, 0) for key in keys)
            if size > LARGEST_NPZ:
                raise ValueError(f"it unpacks to {size / 2**30:.1f} GB, which no file of this kind has")
            return {key: archive[key] for key in keys}
    except Exception as error:  # zipfile, zlib and numpy each raise their own for a damaged file
        raise UserError(f"{path}: not a readable npz of plain arrays ({error}). {hint}".rstrip()) from error
