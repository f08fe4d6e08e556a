"""Checks of the images and masks that a capture names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edit3dgs_ns.capture.check_report import Area, CaptureReport, Problem, Progress, in_parallel
from edit3dgs_ns.capture.image_damage import ImageKind, decoded_problem, quick_problem
from edit3dgs_ns.capture.transforms import FrameEntry

_READERS = 16
"""Threads that wait for the disk: more than cores, because a network disk answers late."""
_SAMPLE = 16
"""Images and masks of each capture that are decoded even by a quick check."""
_KINDS: tuple[tuple[Area, ImageKind], ...] = (("Images", "image"), ("Masks", "mask"))


def check_images(
    report: CaptureReport, frames: Sequence[FrameEntry], thorough: bool, progress: Progress | None
) -> None:
    """Looks at each file once, however often it is named. Adds to the report."""
    for area, kind in _KINDS:
        files = {getattr(f, kind): (f.width, f.height) for f in frames if getattr(f, kind) is not None}
        decoded = set(files) if thorough else set(list(files)[:: max(len(files) // _SAMPLE, 1)])

        def look(
            path: Path, kind: ImageKind = kind, files: dict = files, decoded: set = decoded
        ) -> str | None:
            problem = quick_problem(path, files[path])
            return (
                decoded_problem(path, files[path], kind) if problem is None and path in decoded else problem
            )

        workers = (os.cpu_count() or 1) if thorough else _READERS
        for path, what in zip(files, in_parallel(look, list(files), workers, area, progress), strict=True):
            if what is not None:
                advice = "Copy or export it again."
                report.problems.append(Problem(area, str(path), what, advice, missing=what == "is missing"))
