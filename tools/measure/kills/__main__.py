"""Kills an edit at random moments and compares: python -m tools.measure.kills [--kills 35] [--seed 0]

Resumes where it was stopped; outputs/kills holds what it has done (delete it to begin anew). Ends with 1 if a run ended otherwise
than the one that was not killed, or if an edit was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edit3dgs_ns.files import write_durably
from tools.measure.kills.work import PHASES, load_everything, prepare, work
from tools.measure.trust_file import OUTPUT, merge

Event = tuple[str, float]
"""The beginning ("saving") or end ("-saving") of a phase, and the time."""
_MOST_TRIES = 5


@dataclass(frozen=True)
class Killed:
    """What came of one kill."""

    phase: str
    moment: str
    """Which of the phase's times, and how long after it had begun."""
    edits_before: int
    edits_lost: int
    torn: list[str]
    """Files that were half-written under a final name."""
    differences: list[str]


class Child:
    """A process split off this one, which has imported everything already.

    Args:
        do: what it does; it is given a function that says what it is doing.
        log: gets what it prints.
    """

    def __init__(self, do: Callable[[Callable[[str], None]], None], log: Path):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            self._run(do, writing, log)
        os.close(writing)
        self._said = os.fdopen(reading)
        self.status: int | None = None

    @staticmethod
    def _run(do: Callable[[Callable[[str], None]], None], writing: int, log: Path) -> None:
        status = 1
        try:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            do(lambda what: (os.write(writing, f"{what}\n".encode()), None)[1])
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def events(self) -> list[Event]:
        """Waits for its end."""
        events = [(line.strip(), time.monotonic()) for line in self._said]
        self._end()
        return events

    def kill_at(self, phase: str, number: int, seconds: float) -> bool:
        """Kills it so long after a phase has begun for the `number`-th time; False if it had ended before."""
        begun = 0
        for line in self._said:
            begun += line.strip() == phase
            if begun == number:
                time.sleep(seconds)
                os.kill(self.pid, signal.SIGKILL)
                break
        self._end()
        return self.status == -signal.SIGKILL

    def _end(self) -> None:
        _, code = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(code)
        self._said.close()


class Campaign:
    """All kills of one seed.

    Args:
        folder: of the campaign.
        seed: of the moments.
    """

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        self.shared, self.whole = folder / "shared", folder / "whole"
        self.times: dict[str, list[float]] = {}

    def begin(self) -> None:
        """What all kills share, and the run that is not killed; what is there already is not made again."""
        self._once(self.shared, lambda say: prepare(self.shared))
        times = self.folder / "times.json"
        if not times.is_file():
            shutil.rmtree(self.whole, ignore_errors=True)
            events = self._finished(lambda say: work(self.shared, self.whole, say), self.whole)
            write_durably(times, json.dumps(_durations(events)).encode())
        self.times = json.loads(times.read_text())
        missing = [phase for phase in PHASES if not self.times.get(phase)]
        assert not missing, f"the work has no {missing}"

    def kill(self, number: int) -> Killed:
        """Kills one run, goes on with it, and compares."""
        from tools.measure.kills.compare import differences, edits_in, torn

        record = self.folder / f"kill_{self.seed}_{number:03d}.json"
        if record.is_file():
            return Killed(**json.loads(record.read_text()))
        folder, phase = self.folder / f"killed_{number:03d}", PHASES[number % len(PHASES)]
        chance = random.Random(f"{self.seed}/{number}")
        for _ in range(_MOST_TRIES):
            which = chance.randrange(len(self.times[phase]))
            seconds = self.times[phase][which] * chance.random()
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            child = Child(lambda say: work(self.shared, folder, say), folder / "killed.txt")
            if child.kill_at(phase, which + 1, seconds):
                break
        else:
            raise RuntimeError(
                f"kill {number}: every run ended before it was killed; {folder} has their output"
            )
        before, half = edits_in(folder), torn(folder)
        self._finished(lambda say: work(self.shared, folder, say), folder)
        after = edits_in(folder)
        lost = [name for name, digest in before.items() if after.get(name) != digest]
        killed = Killed(
            phase,
            f"{which + 1} of {len(self.times[phase])}, after {seconds:.3f} s",
            len(before),
            len(lost),
            half,
            differences(self.whole, folder),
        )
        write_durably(record, json.dumps(asdict(killed)).encode())
        if not killed.differences and not killed.torn:
            shutil.rmtree(folder)
        return killed

    def _once(self, folder: Path, do: Callable[[Callable[[str], None]], None]) -> None:
        done = folder / "done"
        if not done.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            self._finished(do, folder)
            done.touch()

    @staticmethod
    def _finished(do: Callable[[Callable[[str], None]], None], folder: Path) -> list[Event]:
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "output.txt"
        child = Child(do, log)
        events = child.events()
        if child.status != 0:
            raise RuntimeError(
                f"a run that nobody killed ended with {child.status}:\n{log.read_text()[-3000:]}"
            )
        return events


def _durations(events: list[Event]) -> dict[str, list[float]]:
    """How long each phase took, each time, in the order of their beginnings. A phase may contain others."""
    found: dict[str, list[float]] = {phase: [] for phase in PHASES}
    open_ones: dict[str, list[tuple[int, float]]] = {phase: [] for phase in PHASES}
    for what, moment in events:
        phase = what.removeprefix("-")
        if what == phase:
            open_ones[phase].append((len(found[phase]), moment))
            found[phase].append(0.0)
        else:
            place, began = open_ones[phase].pop()
            found[phase][place] = moment - began
    return found


def figures(results: list[Killed]) -> dict[str, Any]:
    """For outputs/trust.json."""
    identical = [r for r in results if not r.differences and not r.torn]
    return {
        "count": len(results),
        "identical": len(identical),
        "edits_lost": sum(r.edits_lost for r in results),
        "phases": dict(Counter(r.phase for r in results)),
    }


def main(arguments: list[str] | None = None) -> int:
    """Kills, prints a line for each, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=35)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=OUTPUT.parent / "kills")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    options = parser.parse_args(arguments)
    load_everything()
    campaign = Campaign(options.folder.resolve(), options.seed)
    campaign.begin()
    results = []
    for number in range(options.kills):
        killed = campaign.kill(number)
        results.append(killed)
        said = "as if not killed" if not killed.differences else f"OTHER: {', '.join(killed.differences[:4])}"
        half = f"; HALF-WRITTEN: {', '.join(killed.torn)}" if killed.torn else ""
        lost = f"{killed.edits_lost} of {killed.edits_before} edits lost"
        print(f"{number:3} {killed.phase:9} {killed.moment:28} {lost}, {said}{half}", flush=True)
    found = figures(results)
    merge("kills", found, options.out.resolve())
    print(found)
    return int(found["identical"] < found["count"] or found["edits_lost"] > 0)


if __name__ == "__main__":
    sys.exit(main())
