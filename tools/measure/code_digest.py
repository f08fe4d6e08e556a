"""What a measurement depends on where code, and not only weights, decides it."""

from __future__ import annotations

import hashlib
from pathlib import Path


def folder_digest(folder: Path) -> str:
    """Of the Python files that lie in a folder: 12 hexadecimal digits.

    Raises:
        FileNotFoundError: there is no such code, and the digest would be of nothing.
    """
    files = sorted(folder.glob("*.py"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no Python files.")
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
