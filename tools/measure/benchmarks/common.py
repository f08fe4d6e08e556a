"""What the sections of the benchmark share: the machine, clocks, and the file."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any


def machine(threads: int) -> dict[str, Any]:
    """What was measured on: a record for the file. `load` is the one-minute load average before measuring."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numba", "numpy")},
        "load": round(os.getloadavg()[0], 2),
    }


def same_machine(known: Mapping[str, Any], machine: Mapping[str, Any]) -> bool:
    """Whether times of an earlier record (of `machine`, or empty) can be used with this one."""
    return all(known.get(key) == machine[key] for key in ("cpu", "cores", "threads", "torch"))


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def available_gb() -> float | None:
    """Memory that a new process can have without pushing others out; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    fields = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return fields["MemAvailable"] / 1e6


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Numba's kernels and PyTorch's operations on this many threads."""
    import numba
    import torch

    before = numba.get_num_threads(), torch.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before[0])
        torch.set_num_threads(before[1])


def alternate(functions: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Median wall seconds of each function; they take turns, so that other load on the machine hits all alike."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, record in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            record.append(time.perf_counter() - start)
    return [median(record) for record in seconds]


def cpu_seconds(function: Callable[[], Any], rounds: int) -> float:
    """Median CPU seconds of this thread. For kernels on one thread: what the core needs, whoever else waits for it."""
    seconds = []
    for _ in range(rounds):
        start = time.thread_time()
        function()
        seconds.append(time.thread_time() - start)
    return median(seconds)


def shown(value: Any) -> str:
    """A figure for the table."""
    if isinstance(value, bool) or not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def read_json(path: Path) -> dict[str, Any]:
    """What an earlier run wrote; nothing if there was none.

    Raises:
        ValueError: the file is not a record of this benchmark.
    """
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); move it away or choose another --out") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds a {type(record).__name__}, expected the object that `make bench` writes; "
                         "move it away or choose another --out")  # fmt: skip
    return record


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Writes the whole file or nothing."""
    from edit3dgs_ns.files import written_beside

    with written_beside(path) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n")
