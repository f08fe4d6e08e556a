"""Mean and spread of every arm, and the figures that are to be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from tools.measure.ablation.plan import ARMS, Arm

MEASURES = (
    "view_disagreement", "time_disagreement", "expression_error", "change_outside_mask", "psnr_novel_view", "ssim_novel_view",
    "psnr_unseen", "ssim_unseen", "unet_evaluations", "seconds",
)  # fmt: skip

Row = Mapping[str, Any]
Chosen = Callable[[Row], bool]


LEFT_ALONE = 0.05
"""An instruction whose true edit changes eyes and the mouth's inside by less leaves the expression's looks alone. A statue's
eyes are metal: what retention keeps is then not what was asked for."""


def left_alone(rows: Sequence[Row], details: Sequence[Row]) -> list[Row]:
    """The rows whose instruction leaves the expression's looks alone; see LEFT_ALONE."""
    return [row for row, d in zip(rows, details, strict=True) if d["true_expression_change"] < LEFT_ALONE]


def summary(rows: Sequence[Row], details: Sequence[Row]) -> dict[str, Any]:
    """Of the rows there are: `arms` with mean and spread (standard deviation over instructions and seeds), and `figures`.

    Args:
        rows: of ablation.json.
        details: of the same rows, in the same order.
    """
    arms = []
    for arm in ARMS:
        own = [row for row in rows if of_arm(row, arm)]
        if own:
            statistics = {measure: _statistics([row[measure] for row in own]) for measure in MEASURES}
            arms.append(
                {
                    "correspondence": arm.correspondence,
                    "retention": arm.retention,
                    "rows": len(own),
                    **statistics,
                }
            )
    return {"arms": arms, "figures": figures(rows, details)}


def of_arm(row: Row, arm: Arm) -> bool:
    """Whether a row is of an arm."""
    return row["correspondence"] == arm.correspondence and row["retention"] == arm.retention


def figures(rows: Sequence[Row], details: Sequence[Row]) -> list[dict[str, Any]]:
    """What is asked of the means over all rows, each with what was measured and whether it is reached.

    The correspondences are compared over rows with and without retention together, retention over all correspondences. None
        where rows are missing.
    """
    alone, epipolar, rig = (_with("correspondence", kind) for kind in ("none", "epipolar", "rig"))
    kept, free = _with("retention", True), _with("retention", False)
    calm = left_alone(rows, details)
    views, times, expression = "view_disagreement", "time_disagreement", "expression_error"
    retention = "expression error, with retention below without"
    result = [
        _at_least("view disagreement, epipolar below each view alone", 0.30, _drop(rows, views, alone, epipolar)),
        _at_least("view disagreement, rig below each view alone", 0.50, _drop(rows, views, alone, rig)),
        _at_least("time disagreement, rig below each view alone", 0.50, _drop(rows, times, alone, rig)),
        _at_least(f"{retention} (edits that leave eyes and teeth alone)", 0.40, _drop(calm, expression, free, kept)),
        _at_least(f"{retention} (all edits)", 0.40, _drop(rows, expression, free, kept)),
    ]  # fmt: skip
    rest = [row for row in rows if row not in calm]
    decided, undecided = _both(rig, _with("retention", "auto")), _both(rig, free)
    for group, name in ((calm, "edits that leave eyes and teeth alone"), (rest, "edits that change them")):
        what = f"expression error, keep auto below without ({name})"
        result.append(_at_least(what, 0.0, _drop(group, expression, undecided, decided)))
    change = _drop(rows, "change_outside_mask", free, kept)
    what = "change on the head outside the mask, with retention against without"
    result.append(
        {
            "what": what,
            "asked": "within 0.1",
            "measured": None if change is None else -change,
            "reached": None if change is None else abs(change) <= 0.10,
        }
    )
    best, plain = _mean(rows, "psnr_unseen", _both(rig, kept)), _mean(rows, "psnr_unseen", _both(alone, free))
    gain = None if best is None or plain is None else best - plain
    what = "PSNR (dB) on the unseen sequence, rig + retention above each view alone"
    return [*result, _at_least(what, 1.0, gain)]


def arms_table(rows: Sequence[Row]) -> Table:
    """Mean and spread of every arm."""
    table = Table(title="Mean ± standard deviation over instructions and seeds", title_justify="left")
    table.add_column("arm")
    heads = "views differ,times differ,expr. error,change outside,PSNR camera,SSIM,PSNR unseen,SSIM,UNet,s"
    for head in heads.split(","):
        table.add_column(head, justify="right")
    for arm in ARMS:
        own = [row for row in rows if of_arm(row, arm)]
        if own:
            cells = [_cell(measure, [row[measure] for row in own]) for measure in MEASURES]
            table.add_row(f"{arm.title} ({len(own)})", *cells)
    return table


def figures_table(figures: Sequence[Mapping[str, Any]]) -> Table:
    """Asked, measured, and the verdict."""
    table = Table("figure", "asked", "measured", "", title="Figures to reach", title_justify="left")
    for figure in figures:
        measured, reached = figure["measured"], figure["reached"]
        verdict = "no rows" if reached is None else "reached" if reached else "not reached"
        table.add_row(
            figure["what"], str(figure["asked"]), "" if measured is None else f"{measured:.3g}", verdict
        )
    return table


def _with(name: str, value: Any) -> Chosen:
    return lambda row: bool(row[name] == value)


def _both(first: Chosen, second: Chosen) -> Chosen:
    return lambda row: first(row) and second(row)


def _mean(rows: Sequence[Row], measure: str, chosen: Chosen) -> float | None:
    values = [row[measure] for row in rows if chosen(row)]
    return float(np.mean(values)) if values else None


def _drop(rows: Sequence[Row], measure: str, base: Chosen, other: Chosen) -> float | None:
    """By which share the mean of one choice of rows lies below another's; None without rows, or where the base is not above 0."""
    before, after = _mean(rows, measure, base), _mean(rows, measure, other)
    return None if before is None or after is None or not before > 0 else 1 - after / before


def _at_least(what: str, asked: float, measured: float | None) -> dict[str, Any]:
    reached = None if measured is None else measured >= asked
    return {"what": what, "asked": f"at least {asked:g}", "measured": measured, "reached": reached}


def _statistics(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "spread": float(np.std(values))}


def _cell(measure: str, values: Sequence[float]) -> str:
    digits = 0 if measure in ("unet_evaluations", "seconds") else 2 if measure.startswith("psnr") else 4
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"
