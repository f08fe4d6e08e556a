"""Runs a sweep: several jobs at once, on this machine or on a Ray cluster, and the table of all results."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from edit3dgs_ns.console import duration, say, warn
from edit3dgs_ns.editing.ray_cluster import connect
from edit3dgs_ns.editing.worker_names import Workers, parse_workers
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import write_durably
from edit3dgs_ns.folder_lock import only_process
from edit3dgs_ns.sweep.jobs import (
    JobFailed,
    JobRunner,
    RunWords,
    avatar_job,
    edit_job,
    evaluation_job,
    report_of,
)
from edit3dgs_ns.sweep.plan import Cell, Plan
from edit3dgs_ns.sweep.table import as_json, as_markdown, table_of


def run_sweep(plan: Plan, run_words: RunWords | None = None) -> int:
    """Does what is not done yet, and writes table.md and table.json.

    Args:
        plan: of the sweep.
        run_words: runs a command; None: as the plan's `workers` says.

    Returns:
        How many cells have failed.

    Raises:
        UserError: its output cannot be a folder.
    """
    try:
        plan.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"output = {str(plan.output)!r} in the plan: no folder can be made there ({error.strerror}). Choose another one."
        ) from error
    workers = parse_workers(plan.workers) or Workers(1, None)
    count, run = (
        (workers.count or 1, run_words or run_here) if workers.address is None else _on_cluster(workers)
    )
    runner, cells = JobRunner(plan.output, run), plan.cells()
    say(f"{len(cells)} edits of {len(plan.subjects)} subjects, {count} at a time: {plan.output}")
    with only_process(plan.output):
        failed = _run_all(plan, cells, runner, count)
    table = table_of([(cell, report_of(plan, cell, runner)) for cell in cells])
    write_durably(plan.output / "table.json", as_json(table).encode())
    write_durably(plan.output / "table.md", as_markdown(table).encode())
    return failed


def _run_all(plan: Plan, cells: Sequence[Cell], runner: JobRunner, count: int) -> int:
    """Runs all cells; an avatar is trained once, by the first cell that needs it, also where that fails."""
    locks = {cell.subject.name: threading.Lock() for cell in cells}
    without_avatar: dict[str, str] = {}
    started, failed = time.monotonic(), 0
    stopped = threading.Event()

    def run(cell: Cell) -> None:
        training = avatar_job(plan, cell.subject)
        if training is not None:
            with locks[cell.subject.name]:
                if stopped.is_set():
                    return
                if cell.subject.name in without_avatar:
                    raise JobFailed(f"{cell.name} has no avatar: {without_avatar[cell.subject.name]}")
                try:
                    runner.run(training)
                except JobFailed as error:
                    without_avatar[cell.subject.name] = str(error)
                    raise
        for job in (edit_job, evaluation_job):
            if stopped.is_set():
                return
            runner.run(job(plan, cell))

    with ThreadPoolExecutor(count) as pool:
        waiting: dict[Future[None], Cell] = {pool.submit(run, cell): cell for cell in _spread(cells)}
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                name = waiting[future].name
                try:
                    future.result()
                except JobFailed as error:
                    failed += 1
                    warn(str(error))
                say(f"{done} of {len(cells)}: {name} ({duration(time.monotonic() - started)})")
        except BaseException:  # Ctrl-C, SIGTERM: what runs comes to its end, and nothing else is begun
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def _spread(cells: Sequence[Cell]) -> list[Cell]:
    """Cells in an order in which neighbours have other subjects: those of one wait for its avatar."""
    order: dict[str, int] = {}
    places: list[tuple[int, int]] = []
    for cell in cells:
        places.append((order.get(cell.subject.name, 0), len(places)))
        order[cell.subject.name] = order.get(cell.subject.name, 0) + 1
    return [cells[place] for _, place in sorted(places)]


def run_here(words: Sequence[str], log: Path) -> int:
    """Runs a command on this machine, and returns its exit status."""
    with Path(log).open("ab") as output:
        return subprocess.run(
            list(words), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env={"PYTHONWARNINGS": "ignore", **os.environ}, check=False,
        ).returncode  # fmt: skip


def _on_cluster(workers: Workers) -> tuple[int, Callable[[Sequence[str], Path], int]]:
    """How many jobs run at once on a Ray cluster, and what runs one there. All machines see the same folders."""
    import ray

    connect(ray, workers)
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0))
    share: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": 1}
    task = ray.remote(max_retries=3, **share)(run_here)
    count = workers.count or max(1, gpus or int(there.get("CPU", 1)))
    return count, lambda words, log: int(ray.get(task.remote(list(words), log)))
