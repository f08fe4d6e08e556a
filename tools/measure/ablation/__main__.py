"""`make ablation`: what makes edits agree across views and time, and keeps the expression; outputs/ablation.json and pictures.

    python -m tools.measure.ablation                              # 42 rows: 7 arms x 3 instructions x 2 seeds
    python -m tools.measure.ablation --edits older green_skin --seeds 0
    python -m tools.measure.ablation --only flow                  # the flow-matching demo editor: alone and together, 4 rows
    python -m tools.measure.ablation --only length                # does the cost grow with the capture?
    python -m tools.measure.ablation --only afterwards            # views of editors that show no predictions, in planted colours

Edits the demo's avatar (outputs/demo, made if it is missing) with each view alone, with key views and epipolar matches, and
with key views and the rig, each with and without expression retention, and compares with the true edited head, which the
capture can render. Every finished row stays: a run that was stopped goes on with the same command.

All arms draw other noise for every view (`--pipeline.editor.shared-noise False`), as Instruct-NeRF2NeRF does. The default
instructions leave the colour open, as most sentences leave something to a diffusion model; a result is compared with the true look
of the nearest hue.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from edit3dgs_ns.files import written_beside
from tools.measure.ablation.plan import ARMS, Arm, Effort, fingerprint, jobs
from tools.measure.ablation.rows import PICTURES, Place, Task, make_row, read_row
from tools.measure.code_digest import folder_digest

ROOT = Path(__file__).resolve().parents[3]
EDITING = ROOT / "edit3dgs_ns" / "editing"
EDITS = ("bright_hair", "face_paint", "bright_statue")
SEEDS = (0, 1)
FLOW_EDITS, FLOW_SEEDS, FLOW_ARMS, FLOW_STEPS = ("face_paint", "bright_statue"), (0,), ("none", "rig"), 4
"""Few rows: transformers have no attention that views could share by epipolar lines, and retention is the same for all editors.
They take as many steps as FLUX.2 klein."""
FLOW_CAMERAS, FLOW_FRAMES, FLOW_BASE_STEPS = 8, 6, 1000
"""A small capture and avatar of their own."""
PERSON = 12
"""Of `edit3dgs demo`."""
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Two processes of one thread each do more than one process of two threads."""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names, add = [arm.name for arm in ARMS], parser.add_argument
    add(
        "--only",
        choices=("rows", "flow", "length", "afterwards"),
        default="rows",
        help="what to measure",
    )
    add("--edits", nargs="+", help="keys of the capture's edits")
    add("--seeds", nargs="+", type=int)
    add("--arms", nargs="+", choices=names, help="only these; the file then has no other rows")
    add("--editor", help="the editing model: demo, or a folder with such a model")
    add("--demo", type=Path, help="the demo whose avatar is edited; default: outputs/demo")
    add(
        "--out",
        type=Path,
        help="rows and pictures; OUT.json; default: outputs/ablation, or outputs/ablation_flow",
    )
    add("--processes", type=int, default=min(2, os.cpu_count() or 1), choices=(1, 2))
    add("--fresh", action="store_true", help="make finished rows again, when the code has changed")
    add("--tiny", action="store_true", help="the same way in a minute; the figures mean nothing")
    options = parser.parse_args(arguments)
    flow = options.only == "flow"
    usual = {
        "edits": FLOW_EDITS if flow else EDITS,
        "seeds": FLOW_SEEDS if flow else SEEDS,
        "arms": FLOW_ARMS if flow else names,
        "editor": "demo-flow" if flow else "demo",
        "out": ROOT / "outputs" / ("ablation_flow" if flow else "ablation"),
    }
    for name, value in usual.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Make what is missing, print, write. Returns 0 also where a figure is not reached: the table says so."""
    options = parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 180)
    result = options.out.with_name(options.out.name + ".json")
    make = {"rows": _rows, "flow": _rows, "length": _length, "afterwards": _afterwards}[options.only]
    try:
        return make(options, result, console)
    except (ValueError, FileNotFoundError) as error:
        console.print(f"[red]Stopped:[/red] {escape(str(error))}", soft_wrap=True)
        return 2


def _rows(options: argparse.Namespace, result: Path, console: Console) -> int:
    from tools.measure.ablation.summary import arms_table, figures_table

    tasks = plan(options)
    if options.fresh:
        for task in tasks:
            shutil.rmtree(task.folder, ignore_errors=True)
    rows, failed = [], 0
    for record in made(tasks, options.processes, console):
        if record is None:
            failed += 1
            continue
        rows.append(record)
        write_result(result, rows, tasks)
    if not rows:
        return 1
    content = write_result(result, rows, tasks)
    for path in draw(tasks, options.out):
        console.print(f"  {path}", soft_wrap=True, highlight=False)
    console.print(arms_table(content["rows"]))
    console.print(figures_table(content["summary"]["figures"]))
    console.print(
        "Noise: each view its own, in all arms. Written to", str(result), soft_wrap=True, highlight=False
    )
    return 1 if failed else 0


def plan(options: argparse.Namespace) -> list[Task]:
    """All rows. Makes the demo's capture and avatar if they are missing.

    Raises:
        ValueError: there is no such edit, or the editing model was never taught it.
        FileNotFoundError: the editing model is not there.
    """
    from edit3dgs_ns.demo.settings import CHECKPOINTS
    from edit3dgs_ns.editing.diffusion.model_folder import check_model, editor_version
    from tools.measure.ablation.training import make_base
    from tools.measure.ablation.truth import sentence

    for edit in options.edits:
        sentence(edit)
    check_model(options.editor)
    _check_instructions(options)
    effort = (
        Effort.tiny() if options.tiny else Effort(steps=FLOW_STEPS) if options.only == "flow" else Effort()
    )
    demo = demo_of(options)
    avatar = make_base(demo)
    newest = max((avatar / CHECKPOINTS).glob("step-*.ckpt"))
    base = hashlib.sha256(newest.read_bytes()).hexdigest()[:12]
    place = Place(options.out.resolve(), demo.files.capture, avatar, options.editor)
    version = editor_version(options.editor)
    if options.only == "flow":  # four short rows, which a change of how views agree has made wrong before
        version += "".join(f"-{folder_digest(EDITING / name)}" for name in ("agreement", "diffusion"))
    return [
        Task(job, place, effort, json.loads(json.dumps(fingerprint(job, effort, version, base))))
        for job in jobs(tuple(options.edits), tuple(options.seeds))
        if job.arm.name in options.arms
    ]


def _check_instructions(options: argparse.Namespace) -> None:
    """Raise a ValueError where a small model that lists what it was taught does not list the edits."""
    from edit3dgs_ns.editing.diffusion.model_folder import taught_edits

    taught = taught_edits(options.editor)
    if unknown := sorted(set(options.edits) - set(taught or options.edits)):
        raise ValueError(
            f"--editor {options.editor} was never taught {', '.join(unknown)}; it knows {', '.join(taught)}. Choose from these "
            "with --edits, or give another model."
        )


def demo_of(options: argparse.Namespace) -> Any:
    """The demo whose avatar is edited: with the capture that is there, else with that of `make demo`."""
    from edit3dgs_ns.demo.job import Demo
    from edit3dgs_ns.demo.settings import DemoSettings
    from edit3dgs_ns.synthetic.settings import SETTINGS_FILE, read_settings

    settings = DemoSettings.tiny() if options.tiny else DemoSettings()
    if own_demo(options) and not options.tiny:
        few = replace(settings.capture, cameras=FLOW_CAMERAS, frames=FLOW_FRAMES)
        settings = replace(settings, capture=few, base_steps=FLOW_BASE_STEPS)
    demo = Demo(replace(settings, editor=options.editor), demo_folder(options).resolve())
    there = (demo.files.capture / SETTINGS_FILE).is_file()
    capture = read_settings(demo.files.capture) if there else replace(settings.capture, seed=PERSON)
    return Demo(replace(demo.settings, capture=capture), demo.files.out)


def demo_folder(options: argparse.Namespace) -> Path:
    """What was asked for; else the one of `make demo`, which a smaller one must not replace."""
    if options.demo is not None:
        return Path(options.demo)
    return Path(options.out) / "demo" if own_demo(options) else ROOT / "outputs" / "demo"


def own_demo(options: argparse.Namespace) -> bool:
    """Whether a smaller demo is made for this."""
    return options.demo is None and (options.tiny or options.only == "flow")


def made(tasks: list[Task], processes: int, console: Console) -> Iterator[dict[str, Any] | None]:
    """All rows, those that are there first; None for one that failed, which is said."""
    missing = []
    for task in tasks:
        record = read_row(task)
        if record is None:
            missing.append(task)
        else:
            yield record
    console.print(f"{len(tasks)} rows, {len(tasks) - len(missing)} of them done before.")
    if not missing:
        return
    if processes > 1:
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")  # of Nerfstudio, at every row
    started, done = time.monotonic(), 0
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(make_row, task): task for task in missing}
        try:
            for future in as_completed(waiting):
                error, done = future.exception(), done + 1
                minutes = (time.monotonic() - started) / 60
                name = waiting[future].job.name
                said = "done" if error is None else f"[red]failed[/red]: {escape(str(error))}"
                console.print(f"{minutes:5.1f} min  {done}/{len(missing)}  {name}: {said}", highlight=False)
                yield None if error is not None else future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def write_result(path: Path, records: list[dict[str, Any]], tasks: list[Task]) -> dict[str, Any]:
    """Writes ablation.json with the rows that there are, in the order of the plan; the section `length` stays."""
    from tools.measure.ablation.summary import summary

    order = {task.job.name: place for place, task in enumerate(tasks)}
    ordered = sorted(records, key=lambda record: order[record["details"]["name"]])
    rows, details = ([record[part] for record in ordered] for part in ("row", "details"))
    settings = {
        key: value for key, value in tasks[0].fingerprint.items() if key in ("effort", "editor", "base")
    }
    content = {
        "rows": rows,
        "summary": summary(rows, details),
        "details": details,
        "settings": {**settings, "shared_noise": False},
    }
    return _write(path, content)


def _write(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Replace these sections of the file."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    with written_beside(path) as partial:
        partial.write_text(json.dumps({**known, **content}, indent=1) + "\n", encoding="utf-8")
    return content


def draw(tasks: list[Task], out: Path) -> list[Path]:
    """The sheets of every edit and seed that has rows."""
    from tools.measure.ablation.pictures import write_sheets

    groups: dict[tuple[str, int], dict[Arm, Path]] = {}
    for task in tasks:
        if read_row(task) is not None:
            own = groups.setdefault((task.job.edit, task.job.seed), {})
            own[task.job.arm] = task.folder / PICTURES
    return [path for (edit, seed), rows in groups.items() for path in write_sheets(out, edit, seed, rows)]


def _length(options: argparse.Namespace, result: Path, console: Console) -> int:
    from tools.measure.ablation.length import run_length

    _write(result, {"length": run_length(demo_of(options), options.out.resolve() / "length", console)})
    console.print(f"Written to {result}", soft_wrap=True, highlight=False)
    return 0


def _afterwards(options: argparse.Namespace, result: Path, console: Console) -> int:
    from tools.measure.ablation.afterwards import measure_afterwards, table

    rows = measure_afterwards(1 if options.tiny else 4, 128 if options.tiny else 256)
    _write(result, {"afterwards": rows})
    console.print(table(rows))
    console.print(f"Written to {result}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
