"""Fetches MediaPipe's Face Mesh from the npm registry, for `edit3dgs export --format html --webcam`.

    python -m tools.data.face_mesh             # writes edit3dgs_ns/web/assets/face_mesh*.gz
    python -m tools.data.face_mesh --check     # says whether those that are there are what the registry gives

The package is the last with models in it; program and models are Apache 2.0. Needs npm.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from edit3dgs_ns.web.page import FACE_MESH

ASSETS = Path(__file__).resolve().parents[3] / "edit3dgs_ns" / "web" / "assets"
PACKAGE = "@mediapipe/face_mesh@0.4.1657299874"
SHA256 = "c08a7e0742a326285da666cf81d77c8b6f3a181a2ee948cadaf166008e0d3bc7"


def fetched(folder: Path) -> dict[str, bytes]:
    """The gzipped files, by their names among the assets.

    Args:
        folder: an empty one, to work in.

    Raises:
        ValueError: the registry gives another package than the one that was looked at.
    """
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{PACKAGE} has the SHA-256 {found}, expected {SHA256}")
    with tarfile.open(archive) as package:
        return {f"{name}.gz": gzip.compress(_content(package, name), mtime=0) for name in FACE_MESH}


def _content(package: tarfile.TarFile, name: str) -> bytes:
    file = package.extractfile(f"package/{name}")
    assert file is not None
    return file.read()


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a file differs")
    check = parser.parse_args().check
    if shutil.which("npm") is None:
        print("npm is not on the PATH; it comes with Node.js (Debian: apt install npm).", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        made = fetched(Path(folder))
    if check:
        # Compared unpacked: another zlib packs the same into other bytes.
        other = [
            name
            for name, data in made.items()
            if gzip.decompress((ASSETS / name).read_bytes()) != gzip.decompress(data)
        ]
        print(f"not what the registry gives: {', '.join(other)}" if other else "as the registry gives it")
        return 1 if other else 0
    for name, data in made.items():
        (ASSETS / name).write_bytes(data)
        print(f"wrote {name}: {len(data)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
