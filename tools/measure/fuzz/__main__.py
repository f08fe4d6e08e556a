"""Tries every reader with files that were spoilt: python -m tools.measure.fuzz [--inputs 2000] [--only "frame npz"]"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from edit3dgs_ns.errors import UserError
from tools.measure.fuzz.hostile import CANARY
from tools.measure.fuzz.readers import Reader, readers
from tools.measure.trust_file import merge


@dataclass
class Outcome:
    """What came of the inputs of one reader."""

    read: int = 0
    refused: int = 0
    """With a message of the reader's own."""
    tracebacks: Counter[str] = field(default_factory=Counter)
    """Other exceptions, by kind and place."""
    silent: Counter[str] = field(default_factory=Counter)
    """Taken, though what was read cannot be used."""


def try_reader(reader: Reader, inputs: int, number: int = 0) -> Outcome:
    """Read `inputs` spoilt files.

    Args:
        reader: to be tried.
        inputs: how many; fewer where there are no others.
        number: of the random sequence.
    """
    outcome, home = Outcome(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / reader.file
        path.parent.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)

        @seed(number)
        @settings(
            max_examples=inputs, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(reader.files())
        def each(content: bytes) -> None:
            path.write_bytes(content)
            _try(reader, path, outcome)

        try:
            each()
        finally:
            os.chdir(home)
        if (Path(folder) / CANARY).exists():
            outcome.silent["a file was run"] += 1
    return outcome


def _try(reader: Reader, path: Path, outcome: Outcome) -> None:
    try:
        found = reader.read(path)
        is_sound = reader.is_sound(found)
    except UserError as error:
        outcome.refused += 1
        str(error).encode("utf-8", "surrogateescape")
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "edit3dgs_ns" in f.filename] or list(frames)
        outcome.tracebacks[f"{type(error).__name__} in {ours[-1].name}: {str(error)[:100]!a}"] += 1
    else:
        outcome.read += 1
        if not is_sound:
            outcome.silent[f"{reader.name}: {type(found).__name__}"] += 1


def main() -> None:
    """Tries all, prints a line for each, and ends with 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000, help="for each reader")
    parser.add_argument("--only", default="", help="part of a reader's name")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chosen = [reader for reader in readers() if options.only in reader.name]
    outcomes = {}
    for reader in chosen:
        outcome = outcomes[reader.name] = try_reader(reader, options.inputs, options.seed)
        counts = f"{outcome.read} read, {outcome.refused} refused"
        found = f"{outcome.tracebacks.total()} tracebacks, {outcome.silent.total()} silent"
        print(f"{reader.name:26} {counts:28} {found}", flush=True)
        for what, count in [*outcome.tracebacks.most_common(8), *outcome.silent.most_common(8)]:
            print(f"    {count:5} {what}", flush=True)
    figures = {
        "readers": len(outcomes),
        "inputs": sum(o.read + o.refused + o.tracebacks.total() for o in outcomes.values()),
        "tracebacks": sum(o.tracebacks.total() for o in outcomes.values()),
        "silent": sum(o.silent.total() for o in outcomes.values()),
    }
    if not options.only:
        merge("files", figures)
    print(figures)
    sys.exit(1 if figures["tracebacks"] or figures["silent"] else 0)


if __name__ == "__main__":
    main()
