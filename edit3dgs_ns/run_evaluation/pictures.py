"""The images of an evaluation: before and after, and beside the true edits where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edit3dgs_ns.evaluation.comparison_grid import Column, Row, draw_comparison_grid
from edit3dgs_ns.evaluation.report_data import SETTINGS
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.rendering.sheet_views import sheet_views
from edit3dgs_ns.rendering.views import EvaluationView, frame_key
from edit3dgs_ns.run_evaluation.subjects import Subject
from edit3dgs_ns.run_evaluation.truth import spread

_FRAMES = 3
"""Frames of each setting that are shown beside their true edits."""


def draw_before_after(subjects: Sequence[Subject], path: Path) -> Path:
    """The avatar before the edits, and below it each run: several views and expressions."""
    base = subjects[0].base
    runs = [base, *(subject.edited for subject in subjects)]
    columns = [
        Column(caption, [run.render(camera).rgb for run in runs], group=group)
        for group, caption, camera in sheet_views(base)
    ]
    return _save(columns, [Row("Before"), *_headings(subjects)], path)


def draw_true_edits(subjects: Sequence[Subject], path: Path) -> Path | None:
    """The same frames before the edits, after each, and as the capture shows them truly edited; None: there are no true edits."""
    if all(subject.truth is None for subject in subjects):
        return None
    rows = [Row("Before")]
    for subject, heading in zip(subjects, _headings(subjects), strict=True):
        rows += [heading] if subject.truth is None else [heading, Row("True edit")]
    columns = []
    for group, shot in _frames(subjects[0]):
        assert shot.image is not None
        sequence = frame_key(shot.image)[0]
        images = [subjects[0].base.render(shot.camera).rgb]
        for subject in subjects:
            images.append(subject.edited.render(shot.camera).rgb)
            if subject.truth is not None:
                images.append(subject.truth.picture(shot.image))
        columns.append(Column(f"{sequence}, timestep {shot.timestep}", images, group=group))
    return _save(columns, rows, path) if columns else None


def _frames(subject: Subject) -> list[tuple[str, EvaluationView]]:
    """A few frames of each setting that has images, with the setting's title."""
    found = []
    for setting in subject.settings:
        shots = [shot for path in setting.paths for shot in path if shot.image is not None]
        if shots:
            found += [(SETTINGS[setting.key].lower(), shots[i]) for i in spread(len(shots), _FRAMES)]
    return found


def _headings(subjects: Sequence[Subject]) -> list[Row]:
    names = [f"“{subject.info.prompt}”" for subject in subjects]
    titles = ["After"] if len(subjects) == 1 else [subject.info.name for subject in subjects]
    return [Row(title, name) for title, name in zip(titles, names, strict=True)]


def _save(columns: list[Column], rows: list[Row], path: Path) -> Path:
    width = columns[0].images[0].shape[1]
    sheet = draw_comparison_grid(columns, rows, cell_width=max(160, min(width, 320)))
    with written_beside(path) as partial:
        sheet.save(partial, format="png")
    return path
