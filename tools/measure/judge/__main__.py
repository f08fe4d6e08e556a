"""How well bad edited views are told from good ones: outputs/judge.json.

    python -m tools.measure.judge                # 50 views with planted faults, true edits and the demo editor's
    python -m tools.measure.judge --tiny         # the same way in seconds

Good views are the true edits of synthetic people, and what the embedded editor makes of them. A fault counts as found where the
view is refused, or moved back into place; a good view as refused where it is refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from edit3dgs_ns.editing.judging.judge import Verdict, judge_alone, judge_together, judge_views
from edit3dgs_ns.files import write_durably
from edit3dgs_ns.synthetic.edits import EDITS, OPEN_EDITS
from tools.measure.judge.views import CAMERAS, Batch, batches, planted

ROOT = Path(__file__).resolve().parents[3]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write. Returns 0 also where a figure is not reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "judge.json")
    parser.add_argument("--tiny", action="store_true", help="few views, no editor")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    content = measure(1 if options.tiny else 10, 128 if options.tiny else 256, not options.tiny)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_durably(options.out, (json.dumps(content, indent=1) + "\n").encode())
    console.print(table(content))
    console.print(f"Written to {options.out}", soft_wrap=True, highlight=False)
    return 0


def measure(count: int, size: int, with_editor: bool) -> dict[str, Any]:
    """The content of judge.json.

    Args:
        count: batches of CAMERAS views.
        size: side of the images, pixels.
        with_editor: also judge what the embedded editor makes, of every second batch.
    """
    found, views = Counter[str](), Counter[str]()
    good, refused, mended = Counter[str](), Counter[str](), Counter[str]()
    edits = [*((key, None) for key in EDITS), *((key, 0.1 + 0.3 * k) for k, key in enumerate(OPEN_EDITS))]
    editor = _demo_editor() if with_editor else None
    for number, batch in enumerate(batches(count, size)):
        for edit, hue in edits:
            verdicts = judge_views(batch.request("x"), list(batch.truth(edit, hue)))
            _count(f"true {edit}", verdicts, good, refused, mended)
        edit, hue = edits[number % len(edits)]
        for kind, ok in _planted(batch, batch.truth(edit, hue), number):
            views[kind] += 1
            found[kind] += ok
        if editor is not None:
            key, _ = edits[(2 * number + 1) % len(edits)]
            request = batch.request({**EDITS, **OPEN_EDITS}[key].instructions[0])
            verdicts = judge_views(request, list(editor.edit(request).images))
            _count(f"demo editor {key}", verdicts, good, refused, mended)
    return {
        "planted": {kind: {"views": views[kind], "found": found[kind]} for kind in views},
        "good_views": good.total(),
        "good_refused": refused.total(),
        "good_moved": mended.total(),
        "good_by_kind": {
            kind: {"views": good[kind], "refused": refused[kind], "moved": mended[kind]} for kind in good
        },
        "settings": {"size": size, "views_per_batch": CAMERAS},
    }


def _planted(batch: Batch, truth: np.ndarray, number: int) -> Iterator[tuple[str, bool]]:
    """Every view of a batch with every fault in turn, among good ones: the fault, and whether it was found."""
    request = batch.request("x")
    alone = [judge_alone(request, view, image) for view, image in enumerate(truth)]
    for view, image in enumerate(truth):
        for kind, make in planted(image, batch.originals[view], CAMERAS * number + view).items():
            changed = [*alone]
            changed[view] = judge_alone(request, view, make())
            verdict = judge_together(request, changed)[view]
            yield kind, verdict.fault is not None or verdict.mended is not None


def _count(
    kind: str, verdicts: list[Verdict], good: Counter[str], refused: Counter[str], mended: Counter[str]
) -> None:
    good[kind] += len(verdicts)
    for verdict in verdicts:
        refused[kind] += verdict.fault is not None
        mended[kind] += verdict.mended is not None
        if verdict.fault is not None or verdict.mended is not None:
            print(f"{kind}: {verdict.fault or 'moved back'}: {verdict.detail}", flush=True)


def _demo_editor() -> Any:
    from edit3dgs_ns.editing.agreement.sharing import SharingOptions
    from edit3dgs_ns.editing.diffusion.loading import load_editor

    return load_editor("demo", sharing=SharingOptions("rig"))


def table(content: dict[str, Any]) -> Table:
    """For readers."""
    result = Table("views", "judged", "found or refused", title="Judged views", title_justify="left")
    for kind, counts in content["planted"].items():
        result.add_row(kind, str(counts["views"]), str(counts["found"]))
    for kind, counts in content["good_by_kind"].items():
        result.add_row(
            f"good: {kind}", str(counts["views"]), f"{counts['refused']} (moved back: {counts['moved']})"
        )
    return result


if __name__ == "__main__":
    sys.exit(main())
