"""`make results`: measures every figure and draws every image of the README and docs/, and says where they differ from that.

    python -m tools.measure.results                         # measures what is missing, then compares: hours from nothing
    python -m tools.measure.results --only demo editor      # only these parts, then compares
    python -m tools.measure.results --check                 # only compares, with what is there
    python -m tools.measure.results --check --update        # and puts the images that were drawn into docs/images/

It can be stopped (Ctrl-C, kill) and goes on where it was. Ends with 1 where a figure or an image is not what was
measured, or was not measured, with 2 where a part failed. Everything lands in outputs/; run it on an otherwise idle machine, since
some figures are times.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tools.measure.results.claims import Checked, check, read_pages
from tools.measure.results.figures import CLAIMS
from tools.measure.results.parts import PARTS, Place, run_part
from tools.measure.results.pictures import PICTURES, compare, update

ROOT = Path(__file__).resolve().parents[3]


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, compare. Returns 0 where the documentation says what was measured."""
    options = _parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    place = Place(ROOT, options.out.resolve())
    try:
        for part in PARTS:
            if part.name in options.only and not options.check:
                run_part(part, place)
    except (FileNotFoundError, FileExistsError, subprocess.CalledProcessError) as error:
        console.print(f"[red]Stopped[/red] at the part {part.name}: {escape(str(error))}", soft_wrap=True)
        return 2
    checked = check(read_pages(ROOT), CLAIMS, _contents(place))
    if options.update:
        update(place)
    pictures = compare(place)
    console.print(_table(checked))
    for name, verdict in pictures.items():
        console.print(f"{name}: {verdict}", highlight=False)
    wrong = sum(figure.verdict != "holds" for figure in checked)
    wrong += sum(verdict != "as drawn" for verdict in pictures.values())
    console.print(
        f"{len(checked)} figures and {len(PICTURES)} images of the documentation; {wrong} of them differ or were not measured.",
        highlight=False,
    )
    return 1 if wrong else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="measure only these parts")
    parser.add_argument("--check", action="store_true", help="measure nothing")
    parser.add_argument(
        "--update", action="store_true", help="put the images that were drawn into docs/images/"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs", help="where everything lands")
    return parser.parse_args(arguments)


def _contents(place: Place) -> dict[str, Any]:
    """Of the measured files that are there, by the name that claims use; of one that is no JSON its size."""
    names = {figure.file for claim in CLAIMS for figure in claim.figures.values()}
    return {name: _content(place.out / name) for name in names if (place.out / name).is_file()}


def _content(path: Path) -> Any:
    if path.suffix != ".json":
        return {"bytes": path.stat().st_size}
    return json.loads(path.read_text(encoding="utf-8"))


def _table(checked: list[Checked]) -> Table:
    table = Table("page", "text", "figure", "written", "measured", "", title="Figures", title_justify="left")
    for figure in checked:
        measured = "" if figure.measured is None else f"{figure.measured:.5g}"
        verdict = figure.verdict if figure.verdict == "holds" else f"[red]{figure.verdict}[/red]"
        table.add_row(figure.page, escape(figure.text[:60]), figure.name, figure.written, measured, verdict)
    return table


if __name__ == "__main__":
    sys.exit(main())
