"""An avatar as GaussianAvatars saves it: `point_cloud.ply` and `flame_param.npz` side by side, read, checked and written.

The npz holds shape (300), expr (T, 100), rotation, neck_pose, jaw_pose, translation (T, 3), eyes_pose (T, 6), static_offset
(1, V, 3) and dynamic_offset (T, V, 3), all float32. GaussianAvatars never uses a dynamic offset but cannot load an avatar without.

Avatars trained with GaussianAvatars before 28 March 2024 multiply rotations in the other order (its issue 23). The files do not
say so; such an avatar renders with frayed edges here.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edit3dgs_ns.errors import ExistingFileError, UserError
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.motion import FRAME_WIDTHS, NEEDS_TEETH, FlameMotion
from edit3dgs_ns.flame.teeth import FLAME_VERTICES
from edit3dgs_ns.splats.avatar_folder import NPZ_NAME, PLY_NAME, find_avatar
from edit3dgs_ns.splats.ply import BoundGaussians, check_binding, read_bound_ply, write_bound_ply
from edit3dgs_ns.untrusted import read_npz

_POSES = ("expr", *FRAME_WIDTHS)


@dataclass(frozen=True)
class AvatarFiles:
    """Content of the two files."""

    folder: Path
    gaussians: BoundGaussians
    motion: FlameMotion

    @property
    def num_vertices(self) -> int | None:
        """Vertices of the head that the avatar is bound to, where its static offset tells."""
        offset = self.motion.static_offset
        return None if offset is None else len(offset)


def read_avatar(path: Path) -> AvatarFiles:
    """Reads both files.

    Args:
        path: as for `find_avatar`.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: one of them is damaged or no part of an avatar; the message names it.
    """
    folder = find_avatar(path)
    motion = FlameMotion.load(folder / NPZ_NAME)
    if len(motion) == 0:
        raise UserError(
            f"{folder / NPZ_NAME}: has no timestep (expr has shape {tuple(motion.expr.shape)}); expected at least one."
        )
    return AvatarFiles(folder, read_bound_ply(folder / PLY_NAME), motion)


def check_avatar(avatar: AvatarFiles, head: FlameAssets) -> None:
    """Raises a ValueError when the avatar belongs to another head model; the message names the file."""
    path = avatar.folder / NPZ_NAME
    motion = avatar.motion.with_teeth_offset(head.num_vertices)
    differences = []
    if motion.static_offset is not None and len(motion.static_offset) != head.num_vertices:
        differences.append(
            f"static_offset is for {len(motion.static_offset)} vertices, the head has {head.num_vertices}"
        )
    for name, found, known in (
        ("shape", motion.shape.shape[0], head.shapedirs.shape[2]),
        ("expr", motion.expr.shape[1], head.exprdirs.shape[2]),
    ):
        if found > known:
            differences.append(f"{name} has {found} coefficients, the head {known}")
    if differences:
        hint = (
            NEEDS_TEETH
            if motion.needs_teeth and head.num_vertices == FLAME_VERTICES
            else (
                "Avatars of GaussianAvatars need FLAME (5023 vertices, 5143 with teeth): name its file by --flame-model or "
                "FLAME_MODEL_PATH. Avatars of captures made by `edit3dgs capture` need the embedded open head: leave both out."
            )
        )
        raise UserError(f"{path} does not fit the head model {head.source}: {'; '.join(differences)}. {hint}")
    check_binding(avatar.folder / PLY_NAME, avatar.gaussians, len(head.faces), head.source)


def write_avatar(
    folder: Path,
    gaussians: BoundGaussians,
    motion: FlameMotion,
    original: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Writes both files, each atomically.

    Args:
        folder: made if it does not exist.
        gaussians: go into the ply.
        motion: goes into the npz.
        original: the npz that the avatar was imported from. What has not changed since keeps its bits, shape and type, and so does
            what we do not use; an unchanged npz is the same file.
        overwrite: replace files that are there.

    Raises:
        FileExistsError: one of the files is there, and `overwrite` is not given.
    """
    ply, npz = folder / PLY_NAME, folder / NPZ_NAME
    for path in (ply, npz):
        if path.exists() and not overwrite:
            raise ExistingFileError(f"{path} is there already. Give another --output, or --overwrite.")
    write_bound_ply(ply, gaussians)
    with written_beside(npz) as partial:
        if original is not None and not (changed := _changed(motion, original)):
            shutil.copyfile(original, partial)
        else:
            table = _new_table(motion) if original is None else _updated_table(motion, original, changed)
            with partial.open("wb") as file:
                np.savez(file, **table)


def _arrays(motion: FlameMotion) -> dict[str, np.ndarray]:
    """The parameters in GaussianAvatars' order."""
    arrays = {name: getattr(motion, name).detach().cpu().numpy() for name in ("shape", *_POSES)}
    if motion.static_offset is not None:
        arrays["static_offset"] = motion.static_offset.detach().cpu().numpy()[None]
    return arrays


def _new_table(motion: FlameMotion) -> dict[str, np.ndarray]:
    arrays = _arrays(motion)
    vertices = arrays["static_offset"].shape[1] if "static_offset" in arrays else 0
    return arrays | {"dynamic_offset": np.zeros((len(motion), vertices, 3), np.float32)}


def _changed(motion: FlameMotion, original: Path) -> set[str]:
    """Which parameters differ from those of a file."""
    then = FlameMotion.load(original)
    if motion.static_offset is not None:
        then = then.with_teeth_offset(len(motion.static_offset))
    names = {
        name
        for name in ("shape", *_POSES)
        if not torch.equal(getattr(then, name), getattr(motion, name).cpu())
    }
    before = torch.zeros(1) if then.static_offset is None else then.static_offset
    after = torch.zeros(1) if motion.static_offset is None else motion.static_offset.cpu()
    # An avatar without an offset is given one of zeros while it is trained.
    same = torch.equal(before, after) or (then.static_offset is None and not after.any())
    return names if same else names | {"static_offset"}


def _updated_table(motion: FlameMotion, original: Path, changed: set[str]) -> dict[str, np.ndarray]:
    arrays = _arrays(motion)
    table = read_npz(original)
    if len(table["expr"]) != len(motion):
        return _new_table(motion)  # another motion: nothing of the old one can stay
    return table | {name: arrays[name] for name in changed}
