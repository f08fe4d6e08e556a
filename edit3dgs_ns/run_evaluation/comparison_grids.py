"""Comparison grids of an evaluation: renders before and after the edits, and beside the true edits of a synthetic capture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edit3dgs_ns.evaluation.comparison_grid import Column, Row, draw_comparison_grid
from edit3dgs_ns.evaluation.report_data import SETTINGS
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.rendering.comparison_views import comparison_views
from edit3dgs_ns.rendering.views import EvaluationView, frame_key
from edit3dgs_ns.run_evaluation.comparisons import Comparison
from edit3dgs_ns.run_evaluation.truth import spread

_FRAMES = 3
"""Frames of each setting that are compared with their true edits."""


def draw_before_after(comparisons: Sequence[Comparison], path: Path) -> Path:
    """Writes the grid of the avatar before the edits and, below it, each edited run: several views and expressions."""
    base = comparisons[0].base
    runs = [base, *(comparison.edited for comparison in comparisons)]
    columns = [
        Column(caption, [run.render(camera).rgb for run in runs], group=group)
        for group, caption, camera in comparison_views(base)
    ]
    return _save(columns, [Row("Before"), *_headings(comparisons)], path)


def draw_true_edits(comparisons: Sequence[Comparison], path: Path) -> Path | None:
    """Writes the grid of frames before the edits, after each, and as the true edit renders them; None without true edits."""
    if all(comparison.truth is None for comparison in comparisons):
        return None
    rows = [Row("Before")]
    for comparison, heading in zip(comparisons, _headings(comparisons), strict=True):
        rows += [heading] if comparison.truth is None else [heading, Row("True edit")]
    columns = []
    for group, view in _frames(comparisons[0]):
        assert view.image is not None
        sequence = frame_key(view.image)[0]
        images = [comparisons[0].base.render(view.camera).rgb]
        for comparison in comparisons:
            images.append(comparison.edited.render(view.camera).rgb)
            if comparison.truth is not None:
                images.append(comparison.truth.render(view.image))
        columns.append(Column(f"{sequence}, timestep {view.timestep}", images, group=group))
    return _save(columns, rows, path) if columns else None


def _frames(comparison: Comparison) -> list[tuple[str, EvaluationView]]:
    """A few frames of each setting that has images, with the setting's title."""
    found = []
    for setting in comparison.settings:
        views = [view for path in setting.paths for view in path if view.image is not None]
        if views:
            found += [(SETTINGS[setting.key].lower(), views[i]) for i in spread(len(views), _FRAMES)]
    return found


def _headings(comparisons: Sequence[Comparison]) -> list[Row]:
    names = [f"“{comparison.info.prompt}”" for comparison in comparisons]
    titles = ["After"] if len(comparisons) == 1 else [comparison.info.name for comparison in comparisons]
    return [Row(title, name) for title, name in zip(titles, names, strict=True)]


def _save(columns: list[Column], rows: list[Row], path: Path) -> Path:
    width = columns[0].images[0].shape[1]
    grid = draw_comparison_grid(columns, rows, cell_width=max(160, min(width, 320)))
    with written_beside(path) as partial:
        grid.save(partial, format="png")
    return path
