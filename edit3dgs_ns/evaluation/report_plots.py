"""Plots of figures over the frames of a setting."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edit3dgs_ns.evaluation.report_data import SETTINGS, Report
from edit3dgs_ns.files import written_beside

PLOTTED = ("clip_s", "clip_c", "identity", "flicker", "flicker_before")
_COLOURS = ("#1f6feb", "#d1570a", "#2e8b57", "#8250df", "#b3235a", "#5f6b7a")


def draw_plots(report: Report, folder: Path) -> dict[str, Path]:
    """Writes one plot for each setting, with a panel for each figure that is known for every frame.

    Returns:
        The files by key of SETTINGS.
    """
    paths = {}
    for key in SETTINGS:
        known = [run.settings[key] for run in report.runs if key in run.settings]
        panels = [
            name
            for name in PLOTTED[:-1]
            if any(np.isfinite(setting.series.get(name, [])).any() for setting in known)
        ]
        if panels:
            paths[key] = folder / f"over_time_{key}.png"
            _draw(report, key, panels, paths[key])
    return paths


def _draw(report: Report, key: str, panels: list[str], path: Path) -> None:
    # Not pyplot: it keeps figures in a global list, and would look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 0.6 + 1.7 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, panels, strict=True):
        for number, run in enumerate(report.runs):
            if key not in run.settings:
                continue
            series, colour = run.settings[key].series, _COLOURS[number % len(_COLOURS)]
            _plot(axis, series.get(name), colour, "-", run.name)
            if name == "flicker" and number == 0:
                _plot(axis, series.get("flicker_before"), "#9aa4ae", "--", "unedited")
        axis.set_ylabel(report.title(name).replace(" (", "\n("), fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        if len(report.runs) > 1 or name == "flicker":
            axis.legend(fontsize=8, frameon=False, loc="best")
    axes[-1].set_xlabel("frame", fontsize=9)
    axes[0].set_title(SETTINGS[key], fontsize=10, loc="left")
    with written_beside(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def _plot(axis, values: list[float] | None, colour: str, style: str, label: str) -> None:  # type: ignore[no-untyped-def]
    if values is None:
        return
    marker = "." if len(values) < 60 else ""
    axis.plot(range(len(values)), values, style, color=colour, label=label, linewidth=1.3, marker=marker)
