"""Checks of what the transforms files say, before any file that they name is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edit3dgs_ns.capture.check_report import CaptureReport, Problem, listed
from edit3dgs_ns.capture.transforms import FrameEntry, transforms_path

_RIGID = 1e-3
"""How far a camera's rotation may be from orthonormal."""
_NEAR, _FAR = 0.05, 20.0
"""Distances in metres between which cameras of a head stand."""


def check_frames(report: CaptureReport, by_split: Mapping[str, Sequence[FrameEntry]]) -> None:
    """Splits, cameras, head parameters and masks fit together. Adds to the report."""
    _check_splits(report, by_split)
    _check_timesteps(report, by_split)
    for split, frames in by_split.items():
        _check_cameras(report, split, frames)
    _hint_at_principal_point(report, [f for frames in by_split.values() for f in frames])


def _check_splits(report: CaptureReport, by_split: Mapping[str, Sequence[FrameEntry]]) -> None:
    """No image twice in a split, none that is trained on among the held-out ones."""
    images = {split: Counter(f.image for f in frames) for split, frames in by_split.items()}
    for split, counts in images.items():
        source = str(transforms_path(report.folder, split))
        for image in [image for image, count in counts.items() if count > 1]:
            report.problems.append(
                Problem("Frames", source, f"lists {image} {counts[image]} times", "List each image once.")
            )
    for held_out in ("val", "test"):
        source = str(transforms_path(report.folder, held_out))
        for image in images["train"].keys() & images[held_out].keys():
            advice = "Figures on images that were trained on mean nothing: list it in one of the two."
            report.problems.append(
                Problem("Frames", source, f"lists {image}, which transforms_train.json lists too", advice)
            )


def _check_timesteps(report: CaptureReport, by_split: Mapping[str, Sequence[FrameEntry]]) -> None:
    """Every timestep has head parameters or none has, and every timestep one file of them."""
    files: dict[int, Path] = {}
    bare: dict[int, str] = {}
    for split, frames in by_split.items():
        source = str(transforms_path(report.folder, split))
        for frame in frames:
            if frame.flame is None:
                bare.setdefault(frame.timestep_index, source)
            elif files.setdefault(frame.timestep_index, frame.flame) != frame.flame:
                what = (
                    f"has timestep_index {frame.timestep_index} for {frame.flame}, "
                    f"which elsewhere stands for {files[frame.timestep_index]}"
                )
                problem = Problem("Head", source, what, "Give each timestep an index of its own.")
                if problem not in report.problems[-1:]:
                    report.problems.append(problem)
        masks = sum(f.mask is not None for f in frames)
        if 0 < masks < len(frames):
            what = f"names masks for {masks} of {len(frames)} frames: none of them is used"
            report.hints.append(Problem("Masks", source, what, "Name a mask for every frame, or for none."))
    for index in sorted(bare.keys() - files.keys()) if files else ():
        what = f"names no flame_param_path for timestep_index {index}, but for others"
        report.problems.append(Problem("Head", bare[index], what))
    if not files and any(by_split.values()):
        what = "names no flame_param_path: rigged-splatfacto and edit3dgs cannot train on it"
        source = str(transforms_path(report.folder, "train"))
        report.problems.append(Problem("Head", source, what, "Track the head first (VHAP)."))


def _check_cameras(report: CaptureReport, split: str, frames: Sequence[FrameEntry]) -> None:
    if not frames:
        return
    source = str(transforms_path(report.folder, split))
    c2w = np.stack([f.c2w for f in frames])
    rotation = c2w[:, :3, :3]
    off = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max(axis=(1, 2))
    for number in np.flatnonzero((off > _RIGID) | (np.linalg.det(rotation) < 0)):
        what = f"has a transform_matrix for {frames[number].image} that is no rotation and translation"
        advice = "Expected camera-to-world in OpenGL axes, in metres, neither scaled nor mirrored."
        report.problems.append(Problem("Frames", source, what, advice))
    distances = np.linalg.norm(c2w[:, :3, 3], axis=1)
    median = float(np.median(distances))
    if not _NEAR < median < _FAR:
        what = f"has cameras {median:.3g} from the origin (median); expected metres, about 1 for a head"
        report.hints.append(Problem("Frames", source, what, "Export the cameras in metres."))


def _hint_at_principal_point(report: CaptureReport, frames: Sequence[FrameEntry]) -> None:
    """Few files say from which edge cy counts: point at the option where it matters."""
    off = [
        (f.cx - f.width / 2, f.cy - f.height / 2)
        for f in frames
        if f.cx is not None and f.cy is not None and f.cy_from is None
    ]
    largest = max((max(abs(x), abs(y)) for x, y in off), default=0.0)
    if largest > 1.0:
        points = listed(sorted({f"({x:+.1f}, {y:+.1f})" for x, y in off}), 4)
        what = f"has principal points off the centre by {points} pixels; training takes the centre"
        advice = (
            "That is how GaussianAvatars trains too. To use them: --cy bottom for VHAP exports from 2024-11-18 on "
            "(cy counted from the bottom edge), --cy top for earlier ones."
        )
        report.hints.append(Problem("Frames", str(transforms_path(report.folder, "train")), what, advice))
