"""Digests of the code that figures depend on: what was measured with other code is measured again."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import edit3dgs_ns

PACKAGE = Path(edit3dgs_ns.__file__).parent


@lru_cache
def tracking_digest() -> str:
    """Of the tracker with its landmark table, and of what synthetic people look like."""
    return _digest([*(PACKAGE / "tracking").rglob("*.*"), *(PACKAGE / "synthetic").glob("*.py")])


@lru_cache
def driving_digest() -> str:
    """Of everything between a video and a driven avatar."""
    retarget = (PACKAGE / "flame").glob("re*.py")
    return f"{tracking_digest()}-{_digest([*retarget, *(PACKAGE / 'rendering').glob('*.py')])}"


@lru_cache
def training_digest(steps: int) -> str:
    """Of the defaults of the fast method, of what it does with one camera, and of a training's length."""
    from tools.measure.avatar_experiments.__main__ import method_digest

    files = [PACKAGE / "training" / "one_camera.py", PACKAGE / "splats" / "unseen.py"]
    return f"{method_digest()}-{_digest(files)}-{steps}"


def _digest(files: list[Path]) -> str:
    content = [path.read_bytes() for path in sorted(files) if path.is_file() and path.suffix != ".pyc"]
    return hashlib.sha256(b"".join(content)).hexdigest()[:12]
