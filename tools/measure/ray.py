"""Edits in two Ray actors against one process, each held to one thread: outputs/ray.json.

    python -m tools.measure.ray                   # four minutes on two quiet processors: anything else spoils the speed
    python -m tools.measure.ray --tiny            # the same way, quickly

Measures views per second of the embedded editor over several requests in flight, kills a worker at random moments of an edit, and
compares every image with that of one process, to the last bit.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is loaded, here and in the actors

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edit3dgs_ns.editing.agreement.sharing import SharingOptions
from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.editors import load_named_editor
from edit3dgs_ns.editing.thread_safe_editor import ThreadSafeEditor
from edit3dgs_ns.editing.worker_names import Workers
from edit3dgs_ns.editing.workers import RayEditor
from edit3dgs_ns.files import write_durably
from edit3dgs_ns.synthetic.edits import EDITS
from tools.measure.judge.views import batches

_KILLED_STEPS = 4
"""Denoising steps of the edits in which a worker is killed: long enough to be hit at any stage."""
ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "ray.json")
    parser.add_argument("--tiny", action="store_true", help="few, small views")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    content = measure(4, 96 if options.tiny else 256, 2 if options.tiny else 8, 1 if options.tiny else 5)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_durably(options.out, (json.dumps(content, indent=1) + "\n").encode())
    print(json.dumps(content, indent=1))
    return 0


def measure(count: int, size: int, steps: int, kills: int) -> dict[str, Any]:
    """The content of ray.json.

    Args:
        count: requests.
        size: side of their images, pixels.
        steps: denoising steps.
        kills: edits in which a worker is killed.
    """
    load = partial(load_named_editor, "demo", sharing=SharingOptions("rig"))
    requests = _requests(count, size, steps)
    torch.set_num_threads(
        1
    )  # again: Numba's kernels, which have drawn the requests, raise it for their thread
    alone, pool = ThreadSafeEditor(load()), RayEditor(Workers(2, None), load)
    assert len(set(pool.process_ids)) == 2  # both have started
    alone.edit(requests[0])  # the first edit of a process is slower
    _together(pool, requests[:2])
    begin = time.perf_counter()
    expected = [alone.edit(request).images for request in requests]
    single = time.perf_counter() - begin
    begin = time.perf_counter()
    found = _together(pool, requests)
    double = time.perf_counter() - begin
    same = [np.array_equal(a, b) for a, b in zip(found, expected, strict=True)]
    print(f"{single:.1f} s in one process, {double:.1f} s in two actors", flush=True)
    short = [replace(request, steps=_KILLED_STEPS) for request in requests[:2]]
    begin = time.perf_counter()
    expected = [alone.edit(request).images for request in short]
    duration = (time.perf_counter() - begin) / 2  # of one of them, and so of two at once
    for number in range(kills):
        _kill_later(pool, duration * (number + 0.5) / kills)
        again = _together(pool, short)
        same += [np.array_equal(a, b) for a, b in zip(again, expected, strict=True)]
        print(f"killed after {duration * (number + 0.5) / kills:.1f} of {duration:.1f} s", flush=True)
    pool.close()
    views = sum(request.num_views for request in requests)
    return {
        "speedup": round(single / double, 3),
        "kills": kills,
        "identical": all(same),
        "images_compared": len(same) * requests[0].num_views,
        "views_per_second": {"one_process": round(views / single, 4), "two_actors": round(views / double, 4)},
        "settings": {"requests": count, "size": size, "steps": steps, "processors": os.cpu_count()},
    }


def _requests(count: int, size: int, steps: int) -> list[EditRequest]:
    prompts = [edit.instructions[0] for edit in EDITS.values()]
    return [
        replace(batch.request(prompts[number % len(prompts)]), steps=steps, seed=number)
        for number, batch in enumerate(batches(count, size))
    ]


def _together(pool: RayEditor, requests: Sequence[EditRequest]) -> list[np.ndarray]:
    """All requests in flight at once."""
    with ThreadPoolExecutor(len(requests)) as threads:
        return [result.images for result in threads.map(pool.edit, requests)]


def _kill_later(pool: RayEditor, seconds: float) -> None:
    """Ends a worker's process while it works."""
    victim = pool.process_ids[0]
    threading.Timer(seconds, lambda: os.kill(victim, signal.SIGKILL)).start()


if __name__ == "__main__":
    sys.exit(main())
