"""Ray's side of a pool of editors: the cluster, what an actor asks it for, and the wait until the first one has it."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edit3dgs_ns.editing.worker_names import OPTION, Workers
from edit3dgs_ns.errors import UserError

_STARTS = 4
_SPEAK_AFTER = 20.0
"""Seconds of waiting for the first worker after which the user is told why."""
PATIENCE = 600.0
"""Seconds after which the wait for the first worker is given up."""


def connect(ray: Any, workers: Workers) -> None:
    """Joins the cluster, or starts one on this machine; one that this process has joined already stays.

    Raises:
        UserError: no cluster answers.
    """
    if ray.is_initialized():
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _sigterm_kept():
        if workers.address is None:
            _start_here(ray, quiet)
            return
        try:
            ray.init(address=workers.address, **quiet)
        except (ConnectionError, RuntimeError, TimeoutError) as error:
            raise UserError(
                f"{OPTION} {workers.address}: no Ray cluster answers there ({error}). Is its head started?"
            ) from None


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """`ray.init` puts a handler of its own in place, with which a training would end without its checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _start_here(ray: Any, quiet: dict[str, Any]) -> None:
    """Starts a cluster on this machine. Ray gives its own processes 30 seconds, which busy processors exceed: tries again."""
    for attempt in range(_STARTS):
        try:
            ray.init(include_dashboard=False, **quiet)
            return
        except Exception as error:
            ray.shutdown()
            if "timed out during startup" not in str(error) or attempt == _STARTS - 1:
                raise


def room(ray: Any, device: str) -> int:
    """As many actors as the cluster has GPUs, or processors."""
    there = ray.cluster_resources()
    return max(1, int(there.get("GPU" if device == "cuda" else "CPU", 1)))


def share(ray: Any, workers: Workers, device: str, count: int) -> dict[str, float]:
    """What an actor asks the cluster for. More actors than GPUs share them."""
    if device != "cuda":
        return {"num_cpus": 0 if workers.address is None else 1}
    there = max(1, int(ray.cluster_resources().get("GPU", 1)))
    return {"num_cpus": 0, "num_gpus": 1 if count <= there else int(10 * there / count) / 10 or 0.1}


def await_first(
    ray: Any, answers: Sequence[Any], wanted: dict[str, float], tell: Callable[[str], None], patience: float
) -> int:
    """Waits until one of the actors has got what it asked for, and returns which.

    Args:
        ray: the module.
        answers: references to what each actor says first of all.
        wanted: what an actor asks for, as `share` gives it.
        tell: told why it takes so long.
        patience: seconds after which it is given up.

    Raises:
        UserError: none came in time.
    """
    started, told = time.monotonic(), False
    while True:
        left = patience - (time.monotonic() - started)
        ready, _ = ray.wait(list(answers), timeout=max(0.0, left if told else min(_SPEAK_AFTER, left)))
        if ready:
            return list(answers).index(ready[0])
        reason = _lacking(ray, wanted) or "none has answered yet"
        if time.monotonic() - started >= patience:
            raise UserError(
                f"{OPTION}: no worker has started within {patience:g} seconds: {reason}. `ray status` shows who has them. Wait "
                f"until they are free, or edit in this process: {OPTION} 1."
            )
        if not told:
            told = True
            tell(f"Waiting for a worker: {reason}. It is given up after {patience:g} seconds.")


def _lacking(ray: Any, wanted: dict[str, float]) -> str:
    """What the cluster has not free of what an actor asks for; empty if it has all of it."""
    there, free = ray.cluster_resources(), ray.available_resources()
    for option, name, title in (("num_gpus", "GPU", "GPUs"), ("num_cpus", "CPU", "processors")):
        needs, total, idle = (
            float(x) for x in (wanted.get(option, 0), there.get(name, 0), free.get(name, 0))
        )
        if total < needs:
            return f"the cluster has no {title}"
        if idle < needs:
            return f"of the cluster's {total:g} {title} {idle:g} are free, and a worker needs {needs:g}"
    return ""
