"""What an edit costs: the demo's editor against itself in float32, and what agreement of views adds.

speedup                  of the demo's diffusion, 4 views at 256 x 256: float32 over what `auto` chooses on this processor
agreement_time_ratio     4 views together (rig) over each alone, Stable Diffusion's size, 512 x 512, random weights: see `sd_size`
agreement_memory_ratio   the same of the process's peak memory
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import Any

from rich.console import Console

from tools.measure.benchmarks import common
from tools.measure.benchmarks.ball import ball_request


def measure(console: Console, threads: int) -> dict[str, Any]:
    """The section `edit` of bench.json."""
    from edit3dgs_ns.editing.diffusion.loading import load_editor

    console.log("Edit: the demo's editor")
    request = ball_request(4, 256, steps=4)
    editors = [load_editor("demo", dtype=dtype) for dtype in ("float32", "auto")]
    with common.threads(threads):
        edits = [partial(editor.edit, request) for editor in editors]
        for edit in edits:
            edit()
        single, chosen = common.alternate(edits, 3)
    console.log("Edit: Stable Diffusion's size, each view alone and together")
    alone, together = (_at_real_size(kind) for kind in ("none", "rig"))
    return {
        "speedup": round(single / chosen, 2),
        "agreement_time_ratio": round(together["seconds"] / alone["seconds"], 3),
        "agreement_memory_ratio": round(together["peak_mib"] / alone["peak_mib"], 3),
        "seconds_of_4_steps": round(chosen, 2),
        "real_size_seconds_alone": alone["seconds"],
        "real_size_peak_mib_alone": alone["peak_mib"],
        "dtype": alone["dtype"],
    }


def _at_real_size(correspondence: str) -> dict[str, Any]:
    """In a process of its own, so that nothing of one is in the other's peak."""
    command = [sys.executable, "-m", "tools.measure.benchmarks.sd_size", "--correspondence", correspondence]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])
