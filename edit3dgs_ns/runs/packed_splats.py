"""`edit3dgs export --format spz` and `sog`: one timestep in packed formats, by PlayCanvas' program splat-transform.

It leaves coordinates as the PLY has them in both. An spz has y up by its specification (Niantic: right, up, back), as our PLY
has. A sog stands as 3D Gaussian Splatting's own PLY files do, with y down: what shows it (PlayCanvas, SuperSplat) turns it half
around z.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.runs.exporting import SPLAT_NAME, export_splat, refuse_existing

PROGRAM = "splat-transform"
Packed = Literal["spz", "sog"]
_OPTIONS: dict[str, tuple[str, ...]] = {
    "spz": ("--spz-version", "3"),  # which more programs read than 4
    "sog": (),
}


def packed_name(kind: Packed) -> str:
    """Name of the file."""
    return f"splat.{kind}"


def require_program() -> str:
    """The path of splat-transform.

    Raises:
        ValueError: it is not installed.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise UserError(
            f"--format spz and sog are written by {PROGRAM}, which is not on the PATH. Install it with "
            "`npm install -g @playcanvas/splat-transform`, or export --format ply and convert it where it is."
        )
    return found


def export_packed(
    kind: Packed,
    load_config: Path,
    output: Path,
    timestep: int | None = None,
    time: float | None = None,
    overwrite: bool = False,
    max_gaussians: int | None = None,
    report: Callable[[str], None] = lambda note: None,
) -> list[Path]:
    """Writes one timestep as `splat.spz` or `splat.sog`.

    Args:
        kind: of the format.
        load_config: and all others: as of `export_splat`, with its errors.

    Raises:
        ValueError: splat-transform is not installed, or fails.
    """
    program, path = require_program(), output / packed_name(kind)
    refuse_existing((path,), overwrite)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        export_splat(load_config, work, timestep, time, False, max_gaussians, report, y_down=kind == "sog")
        made = work / path.name
        command = [program, "-w", "-q", *_OPTIONS[kind]]
        files = [str(work / SPLAT_NAME), str(made)]
        done = _run([*command, *files])
        if done.returncode and kind == "sog":
            report(f"{PROGRAM} finds no GPU; the CPU takes minutes.")
            done = _run([*command, "-g", "cpu", *files])
        if done.returncode or not made.is_file():
            words = (done.stderr or done.stdout).strip().splitlines()
            raise UserError(f"{PROGRAM} failed: {words[-1] if words else f'exit status {done.returncode}'}")
        with written_beside(path) as partial:
            shutil.copyfile(made, partial)
    return [path]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
