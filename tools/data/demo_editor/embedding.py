"""What every model folder that is embedded in the package must be: readable by all, and small."""

from __future__ import annotations

from pathlib import Path


def checked(folder: Path, most_megabytes: float, what: str) -> float:
    """Set the files' modes, and return the folder's size in megabytes.

    Raises:
        ValueError: it is larger than `most_megabytes`; `what` names it.
    """
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes for the owner alone
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    if size > most_megabytes:
        raise ValueError(
            f"The {what} has {size:.1f} MB, more than {most_megabytes} MB: make the sizes in Settings smaller."
        )
    return size
