"""What our commands write to the terminal: results on stdout; errors, warnings and progress on stderr."""

from __future__ import annotations

import shlex
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

USER_ERROR_EXIT_CODE = 2
"""Of a command that ends with the message of a `UserError`."""
CONSOLE = Console()
ERROR_CONSOLE = Console(stderr=True)
SECONDS_BETWEEN_LINES = 5.0
"""Between two lines about the progress of a task, where there is no terminal to draw a bar on."""


def say(text: str = "", style: str | None = None) -> None:
    """Print a line as it is: no markup, no colours, unwrapped, so that paths and commands in it can be copied."""
    CONSOLE.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def say_command(*words: object, indent: str = "  ") -> None:
    """Print a command line that can be copied into a shell."""
    say(indent + shlex.join(str(word) for word in words))


def say_wrapped(start: str, text: str) -> None:
    """Print text after `start`, broken between words at the terminal's width and indented below itself."""
    lines = textwrap.wrap(
        text,
        max(CONSOLE.width, len(start) + 20),
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,  # paths
        break_on_hyphens=False,
    )
    for line in lines or [start.rstrip()]:
        say(line)


def fits(table: RenderableType) -> bool:
    """Whether the terminal is wide enough for a table whose words are not broken."""
    from rich.measure import Measurement

    unlimited = CONSOLE.options.update_width(100_000)  # a measurement is never wider than its console
    return Measurement.get(CONSOLE, unlimited, table).minimum <= CONSOLE.width


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", right: Iterable[int] = ()
) -> None:
    """Print a table; one that the terminal is too narrow for becomes a list, so that no word is broken.

    Args:
        headings: of the columns.
        rows: cells as plain text.
        title: above the table.
        right: numbers of the columns that are aligned at the right.
    """
    from rich.table import Table

    rows, right = list(rows), set(right)
    table = Table(title=Text(title) if title else None, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if number in right else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    if fits(table):
        CONSOLE.print(table)
        return
    for line in (title,) if title else ():
        say(line, "bold")
    for row in rows:
        filled = [(heading, cell) for heading, cell in zip(headings, row, strict=True) if cell]
        for number, (heading, cell) in enumerate(filled):
            say_wrapped(("- " if number == 0 else "  ") + (f"{heading}: " if heading else ""), cell)


def warn(text: str) -> None:
    """Print a warning of ours on stderr."""
    ERROR_CONSOLE.print(Text.assemble(("warning: ", "bold yellow"), text), soft_wrap=True)


def print_error(message: str) -> None:
    """Print an error's message on stderr as it is: unwrapped, so that a path in it can be copied and searched for."""
    # Text, not a string: file names with [brackets] must not be read as markup. The terminal breaks long lines by itself.
    ERROR_CONSOLE.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


# -- progress ---------------------------------------------------------------------------------------------------------


def progress_bars(transient: bool = False, seconds: float = SECONDS_BETWEEN_LINES) -> Progress:
    """Returns rich's progress display on stderr: bars on a terminal, elsewhere a plain line every few seconds.

    Args:
        transient: bars vanish at the end; lines stay.
        seconds: between two lines.
    """
    if not ERROR_CONSOLE.is_interactive:
        return _line_progress(ERROR_CONSOLE, seconds)
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=ERROR_CONSOLE, transient=transient)


def shown_on(progress: Progress) -> Callable[[str, int, int], None]:
    """Returns a function that is told (what is done, frames done, frames in all) and shows each as a task of `progress`."""
    tasks: dict[str, TaskID] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = progress.add_task(what, total=total or None)
        progress.update(tasks[what], completed=done, total=total or None)

    return show


@contextmanager
def working(progress: Progress, description: str) -> Iterator[None]:
    """Shows what is being done while inside, for work whose length is not known."""
    task = progress.add_task(description, total=None)
    yield
    progress.update(task, total=1, completed=1)


def _line_progress(console: Console, seconds: float) -> Progress:
    from rich.progress import Progress

    class LineProgress(Progress):
        """Prints a line when a task begins, every few seconds while it runs, and at its end."""

        def __init__(self) -> None:
            super().__init__(console=console, auto_refresh=False)
            self._latest: TaskID | None = None
            self._ended: set[TaskID] = set()
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._repeat, name="progress", daemon=True)

        def start(self) -> None:
            self._thread.start()

        def stop(self) -> None:
            self._stop.set()
            self._thread.join()

        def refresh(self) -> None:
            """Nothing is drawn."""

        def add_task(self, description: str, *args: Any, **options: Any) -> TaskID:
            self._latest = task = super().add_task(description, *args, **options)
            self._print(task)
            return task

        def advance(self, task_id: TaskID, advance: float = 1) -> None:
            super().advance(task_id, advance)
            self._moved(task_id)

        def update(self, task_id: TaskID, **options: Any) -> None:
            super().update(task_id, **options)
            self._moved(task_id)

        def _moved(self, task_id: TaskID) -> None:
            self._latest = task_id
            if self._tasks[task_id].finished and task_id not in self._ended:
                self._ended.add(task_id)
                self._print(task_id)

        def _repeat(self) -> None:
            while not self._stop.wait(seconds):
                if self._latest in self._tasks and self._latest not in self._ended:
                    self._print(self._latest)

        def _print(self, task_id: TaskID) -> None:
            task = self._tasks[task_id]
            line = progress_line(task.description, task.completed, task.total, task.elapsed or 0.0)
            console.print(Text(line), soft_wrap=True)

    return LineProgress()


def progress_line(description: str, completed: float, total: float | None, seconds: float) -> str:
    """Returns one line about a task.

    Args:
        description: of the task.
        completed: steps that are done.
        total: steps in all; None if nobody knows.
        seconds: since the task began.
    """
    parts = [description]
    if total is not None and total > 1:
        parts.append(f"{completed:.0f} of {total:.0f}")
    if total is not None and completed >= total:
        return ", ".join([*parts, f"done in {duration(seconds)}"])
    if seconds >= 1:
        parts.append(duration(seconds))
    if total and completed and seconds >= 1:
        parts.append(f"about {duration(seconds / completed * (total - completed))} left")
    return ", ".join(parts) + (" ..." if not completed else "")


def duration(seconds: float) -> str:
    """Returns a time in words: `8 s`, `2 min 05 s`, `1 h 20 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, which gets an s unless it is one: `1 camera`, `2,000 images`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
