"""Measures what leaves this project, and writes it to share.json (`make results`, part `share`).

    python -m tools.measure.share RUN/config.yml --page PAGE.html --out outputs/share.json

PAGE.html is what `edit3dgs export --format html` has made of that run. Needs a Chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from edit3dgs_ns.files import write_atomically
from tools.measure.pages.browser import find_chromium
from tools.measure.share.formats import SIDES, agreement
from tools.measure.share.page import POSES, measure_page


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="the run's config.yml")
    parser.add_argument("--page", type=Path, required=True, help="the page made of it")
    parser.add_argument("--out", type=Path, required=True, help="share.json; what else stands there stays")
    parser.add_argument("--poses", type=int, default=POSES)
    parser.add_argument("--pictures", type=Path, help="a folder for the images: ours, the page's")
    options = parser.parse_args(arguments)
    if find_chromium() is None:
        print("Needs a Chromium. Debian: apt install chromium fonts-dejavu-core", file=sys.stderr)
        return 2
    write_share(
        options.out, "page", page_figures(options.config, options.page, options.poses, options.pictures)
    )
    write_share(options.out, "formats", format_figures(options.config))
    return 0


def page_figures(
    config: Path, page: Path, poses: int = POSES, pictures: Path | None = None
) -> dict[str, float]:
    """Agreement of a page with the run that it was made of."""
    from edit3dgs_ns.rendering.web_scene import avatar_of, web_scene
    from edit3dgs_ns.runs.trained_run import TrainedRun

    run = TrainedRun(config)
    found = measure_page(page, avatar_of(run), web_scene(run, fps=25.0), poses, pictures)
    return found.report(page)


def format_figures(config: Path, sides: int = SIDES) -> dict[str, dict[str, Any]]:
    """Agreement of exported splats, drawn by Spark, with the run; spz where splat-transform is installed."""
    from edit3dgs_ns.rendering.web_scene import avatar_of
    from edit3dgs_ns.runs.exporting import export_splat
    from edit3dgs_ns.runs.packed_splats import PROGRAM, export_packed
    from edit3dgs_ns.runs.trained_run import TrainedRun

    avatar = avatar_of(TrainedRun(config))
    splats = avatar.splats(avatar.head.pose_at(0.5))
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {"ply": export_splat(config, Path(folder), time=0.5)[0]}
        if shutil.which(PROGRAM) is not None:
            files["spz"] = export_packed("spz", config, Path(folder), time=0.5)[0]
        for name, path in files.items():
            decibels = agreement(path, splats, sides)
            found[name] = {"opened_by": "Spark", "agreement_db": round(min(decibels), 2)}
    return found


def write_share(path: Path, name: str, figures: dict[str, Any]) -> None:
    """Puts figures under a name in share.json."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    content[name] = figures
    write_atomically(path, json.dumps(content, indent=2).encode())
    print(f"{name}: {json.dumps(figures)}")


if __name__ == "__main__":
    sys.exit(main())
