"""What a check of a capture finds, and how it goes through many files at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from edit3dgs_ns.capture.diagnosis import Diagnosis

Area = Literal["Frames", "Cameras", "Images", "Masks", "Head"]
Progress = Callable[[str, int, int], None]
"""Called with what is being checked, how many of it are done, and how many there are."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_CHUNK = 128
"""Files that a thread checks at a time."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a capture, or that its owner should know."""

    area: Area
    where: str
    """The file, or the file and the frame in it."""
    what: str
    """The message without `where`."""
    advice: str = ""
    """How to correct it."""
    missing: bool = False
    """The file is not there."""


@dataclass
class CaptureReport:
    """Findings of a check."""

    folder: Path
    frames: dict[str, int] = field(default_factory=dict)
    """By split."""
    timesteps: int = 0
    cameras: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """All widths and heights, pixels."""
    decoded_bytes: int = 0
    """Of all images together, 8 bits a channel."""
    problems: list[Problem] = field(default_factory=list)
    """Errors that would stop training or make its metrics wrong."""
    hints: list[Problem] = field(default_factory=list)
    """Allowed, but seldom intended."""
    diagnosis: Diagnosis | None = None
    """What the images say of the cameras and of each other; None if the head could not be posed."""


def in_parallel(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    workers: int,
    name: str,
    progress: Progress | None,
) -> list[_Result]:
    """Results in the order of the items; Ctrl-C stops it after what is being looked at."""

    def some(chunk: Sequence[_Item]) -> list[_Result]:
        return [function(item) for item in chunk]

    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    results: list[_Result] = []
    pool = ThreadPoolExecutor(workers)
    try:
        for done in pool.map(some, chunks):
            results += done
            if progress is not None:
                progress(name, len(results), len(items))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return results


def listed(values: Iterable[object], most: int = 6) -> str:
    """Some values, and how many there are more."""
    texts = [str(value) for value in values]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
