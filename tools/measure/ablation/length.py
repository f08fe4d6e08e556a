"""Does the cost of an edit grow with the capture? The same edit on the demo's capture and on one four times as long.

Both are edited in as many rounds, of the timesteps whose expressions are farthest apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edit3dgs_ns.demo.job import Demo
from edit3dgs_ns.demo.job_steps import Step, StepRunner
from edit3dgs_ns.demo.settings import BASE_METHOD, run_dir
from edit3dgs_ns.editing.diffusion.model_folder import editor_version
from tools.measure.ablation.training import METHOD, avatar_figures, editing_cost, make_base, train
from tools.measure.ablation.truth import TrueHead, sentence

TIMES = 4
EDIT = "older"
"""An edit with one true look, so that two results can be compared with one truth."""
ORDER = "farthest-first"
_IMAGES = 32


def run_length(demo: Demo, out: Path, console: Console) -> dict[str, Any]:
    """Both captures: make, train, edit and measure what is missing.

    Args:
        demo: the ordinary capture and its avatar.
        out: folder for the long capture, its avatar and both edits.
        console: says what goes on.

    Returns:
        The section `length` of ablation.json.
    """
    frames = demo.settings.capture.frames
    longer = replace(demo.settings, capture=replace(demo.settings.capture, frames=TIMES * frames))
    long_demo = Demo(longer, out / "long")
    rows = {}
    for name, source in (("ordinary", demo), ("long", long_demo)):
        make_base(source)
        rows[name] = _edited(name, source, out)
        console.print(f"{name}: {rows[name]}", highlight=False)
    result = {"edit": EDIT, "times": TIMES, **rows, "figures": _figures(rows)}
    console.print(_table(result))
    return result


def _edited(name: str, demo: Demo, out: Path) -> dict[str, Any]:
    """Edit one capture's avatar, alone on the machine, and measure."""
    settings = demo.settings
    avatar = run_dir(demo.files.base, BASE_METHOD)
    options = {"avatar": avatar, "editor.model": settings.editor, "timestep-order": ORDER}
    words = [word for key, value in options.items() for word in (f"--pipeline.{key}", str(value))]
    flags = (
        "--prompt",
        sentence(EDIT),
        *words,
        *settings.edit.flags,
        *settings.train_flags,
        *settings.edit_flags,
    )
    folder = out / f"edit_{name}"

    def action(resume: bool) -> None:
        train(folder, demo.files.capture, flags, settings.edit.steps)

    depends_on = {
        "capture": asdict(settings.capture),
        "base_steps": settings.base_steps,
        "flags": list(flags),
        "editor": editor_version(settings.editor),
    }
    step = Step(f"edit_{name}", f"Edit the {name} capture's avatar", depends_on, (folder,), action)
    seconds = StepRunner(out).run(step)
    run = run_dir(folder, METHOD)
    head = TrueHead(demo.files.capture, out / "truth")
    figures, _ = avatar_figures(run, head, EDIT, _IMAGES, [])
    del figures["hue"]
    return {
        "frames": settings.capture.frames,
        **{key: round(value, 4) for key, value in figures.items()},
        "wall_seconds": round(seconds, 1),
        "editing_seconds": editing_cost(run)["seconds"],
    }


def _figures(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    ordinary, long = rows["ordinary"], rows["long"]
    loss = ordinary["psnr_unseen"] - long["psnr_unseen"]
    ratio = long["wall_seconds"] / ordinary["wall_seconds"]
    return [
        _at_most("PSNR (dB) on the unseen sequence that the long capture loses", 0.3, loss),
        _at_most("wall time of the edit, long against ordinary", 1.15, ratio),
    ]


def _at_most(what: str, asked: float, measured: float) -> dict[str, Any]:
    return {
        "what": what,
        "asked": f"at most {asked:g}",
        "measured": round(measured, 4),
        "reached": measured <= asked,
    }


def _table(result: Mapping[str, Any]) -> Table:
    columns = ("frames", "psnr_novel_view", "psnr_unseen", "ssim_unseen", "wall_seconds", "editing_seconds")
    table = Table("capture", *columns, title=f"“{sentence(EDIT)}”, {ORDER}", title_justify="left")
    for name in ("ordinary", "long"):
        table.add_row(name, *(f"{result[name][column]:g}" for column in columns))
    return table
