"""Bundles the splat viewer that `edit3dgs export --format html` puts into its pages, from the npm registry.

    python -m tools.data.web_viewer            # writes edit3dgs_ns/web/assets/splat_viewer.min.js and splat_viewer.licenses.txt
    python -m tools.data.web_viewer --check    # says whether those that are there are what the registry gives

Versions and hashes are pinned in package-lock.json beside this file; the same lock gives the same bytes. Needs node and npm. To
move to a newer viewer: change package.json, `npm install --package-lock-only` beside it, run this, and `pytest tests/web`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCE = Path(__file__).resolve().parent
ASSETS = ROOT / "edit3dgs_ns" / "web" / "assets"
LIBRARY, LICENCES = "splat_viewer.min.js", "splat_viewer.licenses.txt"
PACKAGES = ("@sparkjsdev/spark", "three", "fflate")
"""What ends up in the bundle (fflate within Spark)."""
_ESBUILD = (
    "--bundle",
    "--minify",
    "--format=iife",
    "--global-name=Splats",
    "--target=es2020",
    "--charset=ascii",
    "--log-level=warning",
)


def bundle(folder: Path) -> dict[str, bytes]:
    """The two files, by name.

    Args:
        folder: an empty one, to work in.
    """
    for name in ("package.json", "package-lock.json", "entry.js"):
        shutil.copy(SOURCE / name, folder)
    _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=folder)
    esbuild = folder / "node_modules" / ".bin" / "esbuild"
    _run(str(esbuild), "entry.js", *_ESBUILD, "--legal-comments=none", f"--outfile={LIBRARY}", folder=folder)
    return {LIBRARY: (folder / LIBRARY).read_bytes(), LICENCES: _licences(folder).encode()}


def _licences(folder: Path) -> str:
    """Name, version and licence of every package in the bundle."""
    parts = []
    for package in PACKAGES:
        place = folder / "node_modules" / package
        about = json.loads((place / "package.json").read_text(encoding="utf-8"))
        parts.append(
            f"{package} {about['version']}, {about['license']}\n\n{(place / 'LICENSE').read_text().strip()}\n"
        )
    return f"\n{'-' * 80}\n\n".join(parts)


def _run(*command: str, folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def _write(made: Mapping[str, bytes]) -> None:
    for name, content in made.items():
        (ASSETS / name).write_bytes(content)
        print(f"wrote {ASSETS / name}: {len(content)} bytes")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; 1 if a file is not what would be written"
    )
    check = parser.parse_args().check
    if shutil.which("npm") is None:
        print("npm is not on the PATH; it comes with Node.js (Debian: apt install npm).", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        made = bundle(Path(folder))
    if not check:
        _write(made)
        return 0
    other = [name for name, content in made.items() if (ASSETS / name).read_bytes() != content]
    print(f"not what the registry gives: {', '.join(other)}" if other else "as the registry gives it")
    return 1 if other else 0


if __name__ == "__main__":
    sys.exit(main())
