"""The commands of a sweep: what they run, where their results are, and which of them are done."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edit3dgs_ns.demo.job import find_ns_train, newest_step, training_command
from edit3dgs_ns.demo.settings import CHECKPOINTS, run_dir
from edit3dgs_ns.files import write_durably
from edit3dgs_ns.sweep.plan import Cell, Plan, Subject
from edit3dgs_ns.untrusted import parse_json

RunWords = Callable[[Sequence[str], Path], int]
"""Runs a command with its output in a file; returns its exit status."""
_MOST_STARTS = 3
"""An edit that ends with an error may go on from what it has stored, as often as this in all."""
_STOPPED = (130, 143, -2, -15)
"""Of a command that Ctrl-C or SIGTERM has ended, which nobody wants to be started again."""


@dataclass(frozen=True)
class Job:
    """One command."""

    name: str
    words: tuple[str, ...]
    output: Path
    """Folder that it makes, and nobody else writes into."""
    after: Job | None = None
    """Whose results it reads: done anew, they make this one's out of date."""
    resumes: bool = False
    """A broken-off attempt goes on with what is there; otherwise it starts anew."""

    @property
    def chain(self) -> list[list[str]]:
        """Its command, and those of all that it depends on, the first one last."""
        return [list(self.words), *([] if self.after is None else self.after.chain)]


class JobRunner:
    """Runs jobs of one sweep that are not done yet.

    Args:
        folder: of the sweep; gets `.done/` and `logs/`.
        run_words: runs a command here or on a cluster.
    """

    def __init__(self, folder: Path, run_words: RunWords):
        self._folder, self._run_words = folder, run_words

    def run(self, job: Job) -> None:
        """Runs a job unless it is done.

        Raises:
            JobFailed: it ended with an error.
        """
        if self.is_done(job):
            return
        marker, fingerprint = self._marker(job), {"chain": job.chain}
        known = _read(marker)
        if marker.exists() and (known.get("chain") != job.chain or not job.resumes):
            shutil.rmtree(job.output, ignore_errors=True)
        marker.parent.mkdir(parents=True, exist_ok=True)
        write_durably(marker, json.dumps({**fingerprint, "done": False}).encode())
        log = self._folder / "logs" / f"{job.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_MOST_STARTS if job.resumes else 1):
            status = self._run_words(_resumed(job), log)
            if status == 0 or status in _STOPPED:
                break
        if status != 0:
            raise JobFailed(f"{job.name} ended with status {status}; its last lines are in {log}.")
        write_durably(marker, json.dumps({**fingerprint, "done": True}).encode())

    def is_done(self, job: Job) -> bool:
        """Whether its results are there, made by this very command from those of the same commands."""
        known = _read(self._marker(job))
        return known.get("chain") == job.chain and bool(known.get("done")) and job.output.exists()

    def _marker(self, job: Job) -> Path:
        return self._folder / ".done" / f"{job.name}.json"


class JobFailed(RuntimeError):
    """A command of a sweep ended with an error."""


def _resumed(job: Job) -> tuple[str, ...]:
    """The words that go on where a broken-off edit has stopped."""
    checkpoints = job.output / CHECKPOINTS
    if not job.resumes or not checkpoints.is_dir() or newest_step(checkpoints) is None:
        return job.words
    place = job.words.index("nersemble-data")
    return (*job.words[:place], "--load-dir", str(checkpoints), *job.words[place:])


def avatar_job(plan: Plan, subject: Subject) -> Job | None:
    """Trains a subject's avatar; None if it has one."""
    if subject.avatar is not None:
        return None
    folder = plan.output / "avatars" / subject.name
    words = training_command(plan.method, folder, subject.data, plan.flags.get("train", ()))
    return Job(f"avatar-{subject.name}", (find_ns_train(), *words[1:]), run_dir(folder, plan.method))


def edit_job(plan: Plan, cell: Cell) -> Job:
    """Edits the subject's avatar."""
    subject, folder = cell.subject, plan.output / "edits" / cell.name
    avatar = subject.avatar or run_dir(plan.output / "avatars" / subject.name, plan.method)
    flags = (
        "--prompt", cell.prompt.prompt, "--pipeline.avatar", str(avatar), "--pipeline.editor.model", cell.editor,
        "--pipeline.seed", str(cell.seed), *plan.flags.get("edit", ()),
    )  # fmt: skip
    words = training_command("edit3dgs", folder, subject.data, flags)
    return Job(
        f"edit-{cell.name}",
        (find_ns_train(), *words[1:]),
        run_dir(folder, "edit3dgs"),
        avatar_job(plan, subject),
        resumes=True,
    )


def evaluation_job(plan: Plan, cell: Cell) -> Job:
    """Evaluates the edit."""
    run, output = (
        run_dir(plan.output / "edits" / cell.name, "edit3dgs"),
        plan.output / "evaluation" / cell.name,
    )
    words = (
        sys.executable, "-m", "edit3dgs_ns", "evaluate", "--overwrite", "--load-config", str(run / "config.yml"),
        "--source-caption", plan.source_caption, "--target-caption", cell.prompt.target_caption, "--clip", plan.clip,
        "--output", str(output), *plan.flags.get("evaluate", ()),
    )  # fmt: skip
    return Job(f"evaluate-{cell.name}", words, output, edit_job(plan, cell))


def report_of(plan: Plan, cell: Cell, runner: JobRunner) -> Mapping[str, Any]:
    """What the evaluation has found; empty if there is none of this plan's edit."""
    if not runner.is_done(evaluation_job(plan, cell)):
        return {}
    return _read(plan.output / "evaluation" / cell.name / "report.json")


def _read(path: Path) -> dict[str, Any]:
    """A file's object; of one that is missing or damaged nothing, so that what it speaks of is done again."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
