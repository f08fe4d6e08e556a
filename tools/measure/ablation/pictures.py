"""The sheets: 2D edits of one timestep side by side, and fitted avatars beside the true edited head; a row for each arm. And a
small one for readers in a hurry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.evaluation.comparison_grid import Column, Row, draw_comparison_grid
from edit3dgs_ns.files import written_beside
from tools.measure.ablation.plan import Arm
from tools.measure.ablation.truth import sentence

_MOST_VIEWS = 8
_SUMMARY = (Arm("none", False), Arm("rig", True))
"""Arms of the small sheet."""
_SUMMARY_VIEWS = 6
_CELL = 192
Arrays = Mapping[str, np.ndarray]


def write_sheets(out: Path, edit: str, seed: int, rows: Mapping[Arm, Path]) -> list[Path]:
    """All sheets of one edit and seed.

    Args:
        out: folder.
        rows: pictures.npz of every finished row.

    Returns:
        What was written.
    """
    arrays = {arm: _read(path) for arm, path in rows.items()}
    written = []
    for name, draw in (("views", _views), ("avatars", _avatars), ("summary", _summary)):
        if draw is _summary and not set(_SUMMARY) <= set(arrays):
            continue
        path = out / f"{name}_{edit}_{seed}.png"
        columns, headings = draw(arrays, sentence(edit))
        with written_beside(path) as partial:
            draw_comparison_grid(columns, headings, cell_width=_CELL).save(partial, format="png")
        written.append(path)
    return written


def _read(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _views(arrays: Mapping[Arm, Arrays], prompt: str) -> tuple[list[Column], list[Row]]:
    """Columns are the cameras of a timestep, then those of the next; rows the unedited pictures, the true edit, the arms."""
    first = next(iter(arrays.values()))
    places = [_place(str(place)) for place in first["pictures"]]
    order = sorted(range(len(places)), key=lambda view: places[view])[:_MOST_VIEWS]
    columns = [
        Column(
            f"camera {places[view][2]}",
            [
                _float(first["originals"][view]),
                _float(first["true"][view]),
                *(_float(own["edited"][view]) for own in arrays.values()),
            ],
            group=f"{places[view][0]}, timestep {places[view][1]}",
        )
        for view in order
    ]
    true = Row("true edit", "one look of the many, if the colour is open")
    return columns, [Row("capture", f"“{prompt}”"), true, *(_heading(arm) for arm in arrays)]


def _summary(arrays: Mapping[Arm, Arrays], prompt: str) -> tuple[list[Column], list[Row]]:
    """Columns are cameras of two timesteps; rows the unedited pictures, each view edited alone, all edited together."""
    chosen = {arm: arrays[arm] for arm in _SUMMARY}
    columns, _ = _views(chosen, prompt)
    kept = [columns[round(place)] for place in np.linspace(0, len(columns) - 1, _SUMMARY_VIEWS)]
    short = [replace(column, images=[column.images[0], *column.images[2:]]) for column in kept]
    return short, [
        Row("capture", f"“{prompt}”"),
        Row("one by one", "each view edited alone"),
        Row("together", "key views, the rig, eyes and mouth kept"),
    ]


def _avatars(arrays: Mapping[Arm, Arrays], prompt: str) -> tuple[list[Column], list[Row]]:
    """Columns are pairs of the fitted avatar and the true edited head in the look that is nearest to it."""
    columns = []
    for task, title in (("novel_view", "held-out camera"), ("unseen", "unseen sequence")):
        for number in range(len(next(iter(arrays.values()))[task])):
            for place, caption in enumerate(("avatar", "true")):
                images = [_float(own[task][number, place]) for own in arrays.values()]
                columns.append(Column(caption, images, group=f"{title} {number + 1}"))
    return columns, [_heading(arm) for arm in arrays]


def _place(text: str) -> tuple[str, int, int]:
    """Sequence, timestep, camera."""
    sequence, timestep, camera = text.split("/")
    return sequence, int(timestep), int(camera)


def _heading(arm: Arm) -> Row:
    how, _, extra = arm.title.partition(" + ")
    return Row(how, f"with {extra}" if extra else "")


def _float(image: np.ndarray) -> Float[np.ndarray, "height width 3"]:
    return image.astype(np.float32) / 255
