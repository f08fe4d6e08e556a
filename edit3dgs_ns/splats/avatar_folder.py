"""Where the two files of an avatar are that GaussianAvatars saved; found without loading PyTorch."""

from __future__ import annotations

import re
from pathlib import Path

from edit3dgs_ns.errors import MissingFileError

PLY_NAME, NPZ_NAME = "point_cloud.ply", "flame_param.npz"
_ITERATION = re.compile(r"iteration_(\d+)")


def find_avatar(path: Path) -> Path:
    """The folder with the two files.

    Args:
        path: that folder, the ply in it, or an output folder of GaussianAvatars' training (then its last iteration).

    Raises:
        FileNotFoundError: one of the files is missing.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise MissingFileError(
            f"{path}: no such file or folder. Expected a folder with {PLY_NAME} and {NPZ_NAME}."
        )
    folder = path.parent if path.is_file() else path
    if not (folder / PLY_NAME).is_file():
        iterations = {
            int(match[1]): place
            for place in (folder / "point_cloud").glob("iteration_*")
            if (match := _ITERATION.fullmatch(place.name))
        }
        folder = iterations[max(iterations)] if iterations else folder
    for name in (PLY_NAME, NPZ_NAME):
        if not (folder / name).is_file():
            raise MissingFileError(
                f"{folder / name}: no such file. Expected an avatar as GaussianAvatars saves it: {PLY_NAME} and {NPZ_NAME} in "
                "one folder (point_cloud/iteration_N of its output)."
            )
    return folder
