"""Long jobs in steps: a finished step is reused, a broken-off one goes on, a changed one starts anew.

Each step has a marker, `<folder>/.steps/<name>.json`, with its settings, the seconds spent on it, and whether
it is finished. Files are only ever deleted when a marker says that this job made them.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from edit3dgs_ns.console import CONSOLE, duration
from edit3dgs_ns.errors import ExistingFileError
from edit3dgs_ns.files import write_durably
from edit3dgs_ns.folder_lock import only_process

MARKERS = ".steps"
"""Folder with the markers, in the job's folder."""


@dataclass(frozen=True)
class Step:
    """One step of a job."""

    name: str
    """Name of its marker."""
    title: str
    """What the user reads when it starts."""
    settings: Mapping[str, Any]
    """JSON values that the result depends on, those of earlier steps included."""
    outputs: tuple[Path, ...]
    """Files and folders in the job's folder that are there once it is finished, and only then complete."""
    action: Callable[[bool], None]
    """Does it; the argument is true when an earlier attempt with the same settings was broken off."""


class StepRunner:
    """Runs the steps of one job in its folder."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def run(self, step: Step) -> float:
        """Do the step unless it is done.

        Returns:
            Seconds spent on it, earlier attempts included.

        Raises:
            FileExistsError: an output is there that no run of this job has made.
            UserError: another process works in the folder.
        """
        with only_process(self.folder):
            return self._run(step)

    def _run(self, step: Step) -> float:
        marker = self._read_marker(step)
        settings = json.loads(json.dumps(dict(step.settings)))
        same = marker is not None and marker.get("settings") == settings
        if same and marker is not None and marker["finished"] and all(path.exists() for path in step.outputs):
            CONSOLE.print(
                f"[green]✓[/green] {escape(step.title)}: done before ({duration(marker['seconds'])})"
            )
            return float(marker["seconds"])
        resume = same and marker is not None and not marker["finished"]
        if not resume:
            self._clear(step, made_by_us=marker is not None)
        before = float(marker["seconds"]) if resume and marker is not None else 0.0
        return self._do(step, settings, resume, before)

    def _do(self, step: Step, settings: dict[str, Any], resume: bool, before: float) -> float:
        CONSOLE.rule(f"[bold]{escape(step.title)}[/bold]" + (" (going on)" if resume else ""), align="left")
        start = time.monotonic()
        finished = False
        self._write_marker(step, settings, before, finished=False)
        try:
            step.action(resume)
            finished = True
        finally:
            # Also when it broke off (Ctrl-C, an error): what was spent so far counts when it goes on.
            seconds = before + time.monotonic() - start
            self._write_marker(step, settings, seconds, finished)
        absent = [str(path) for path in step.outputs if not path.exists()]
        assert not absent, f"step {step.name} has not made {absent}"
        CONSOLE.print(f"[green]✓[/green] {escape(step.title)}: {duration(seconds)}")
        return seconds

    def _clear(self, step: Step, made_by_us: bool) -> None:
        for path in step.outputs:
            assert path.resolve().is_relative_to(self.folder.resolve()), path
            if not path.exists():
                continue
            if not made_by_us:
                raise ExistingFileError(
                    f"{path} is there already, but was not made by this command: it is left alone. "
                    "Give another folder, or move it away."
                )
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _marker_path(self, step: Step) -> Path:
        return self.folder / MARKERS / f"{step.name}.json"

    def _read_marker(self, step: Step) -> dict[str, Any] | None:
        path = self._marker_path(step)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _write_marker(self, step: Step, settings: dict[str, Any], seconds: float, finished: bool) -> None:
        path = self._marker_path(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"settings": settings, "seconds": round(seconds, 1), "finished": finished}
        write_durably(path, json.dumps(content, indent=2).encode())
