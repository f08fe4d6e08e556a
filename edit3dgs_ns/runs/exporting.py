"""`edit3dgs export`: the avatar of a run as files for other programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from edit3dgs_ns.errors import ExistingFileError, MissingFileError, UserError
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.runs.importing import IMPORTED
from edit3dgs_ns.splats.avatar_files import write_avatar
from edit3dgs_ns.splats.avatar_folder import NPZ_NAME, PLY_NAME
from edit3dgs_ns.splats.avatar_state import check_avatar_numbers
from edit3dgs_ns.splats.checkpoints import find_checkpoint, model_state, read_checkpoint
from edit3dgs_ns.splats.ply import BoundGaussians, write_splat_ply
from edit3dgs_ns.splats.rigged_gaussians import bound_gaussians, lost_in_ply, motion_of, offset_of
from edit3dgs_ns.splats.run_config import edited_avatar
from edit3dgs_ns.splats.similarity import Similarity
from edit3dgs_ns.splats.world_splats import WorldSplats

if TYPE_CHECKING:
    from edit3dgs_ns.flame.motion import FlameMotion
    from edit3dgs_ns.runs.trained_run import TrainedRun

OPTION = "--load-config"
SPLAT_NAME = "splat.ply"
GLB_NAME = "avatar.glb"
_HALF_TURN = Similarity.from_parts(degrees=(0.0, 0.0, 180.0))
_RUN = (
    "the config.yml of a run of `ns-train rigged-splatfacto` or `ns-train edit3dgs`, or of `edit3dgs import`"
)


def export_pair(
    load_config: Path,
    output: Path,
    overwrite: bool = False,
    max_gaussians: int | None = None,
    report: Callable[[str], None] = lambda note: None,
) -> tuple[list[Path], list[str]]:
    """Writes GaussianAvatars' point_cloud.ply and flame_param.npz; needs neither the capture nor the head model.

    Of an avatar that was imported, what has not changed since comes out bit for bit. An offset of the resting expression is baked
    into the motion.

    Args:
        load_config: the run's config.yml.
        output: folder; made if it does not exist.
        overwrite: replace files that are there.
        max_gaussians: keep the most important ones, see `runs.thinning`; this does need the head model.
        report: told what that costs.

    Returns:
        The files, and what of the avatar the format has no place for.

    Raises:
        FileNotFoundError, ValueError: no run, or none of a rigged avatar.
        FileExistsError: a file is there already.
    """
    config = _require_config(load_config)
    checkpoint = find_checkpoint(config, OPTION, _RUN)
    state = model_state(read_checkpoint(checkpoint, OPTION))
    if "gauss_params.means" not in state or "head.shape" not in state:
        raise UserError(f"{OPTION} {checkpoint} holds no rigged avatar. Expected {_RUN}.")
    check_avatar_numbers(state, f"{OPTION} {checkpoint}")
    gaussians = bound_gaussians(state)
    if max_gaussians is not None:
        from edit3dgs_ns.runs.thinning import thin
        from edit3dgs_ns.runs.trained_run import TrainedRun

        refuse_existing((output / PLY_NAME, output / NPZ_NAME), overwrite)
        thinned = thin(TrainedRun(config), max_gaussians)
        gaussians = BoundGaussians(**{name: value[thinned.rows] for name, value in vars(gaussians).items()})
        report(str(thinned))
    write_avatar(output, gaussians, _shown_motion(state), _imported_npz(config), overwrite)
    return [output / PLY_NAME, output / NPZ_NAME], lost_in_ply(state)


def _shown_motion(state: Mapping[str, torch.Tensor]) -> FlameMotion:
    """The motion in a model's state, under its offset of expression."""
    motion = motion_of(state)
    if offset_of(state, None) is None:
        return motion
    open_head = load_assets(OPEN_HEAD_PATH)
    is_open_head = len(state["head.static_offset"]) == open_head.num_vertices
    offset = offset_of(state, open_head.expression_names if is_open_head else None)
    assert offset is not None
    return motion.with_pose(offset.posed(motion.pose()))


def export_splat(
    load_config: Path,
    output: Path,
    timestep: int | None = None,
    time: float | None = None,
    overwrite: bool = False,
    max_gaussians: int | None = None,
    report: Callable[[str], None] = lambda note: None,
    y_down: bool = False,
) -> list[Path]:
    """Writes a standard splat of one timestep, as generic viewers read it, with all that moves and lights the avatar baked in.

    Args:
        load_config: the run's config.yml.
        output: folder; made if it does not exist.
        timestep: normalised time, 0 ... T-1.
        time: normalised time, in [0, 1]. Without either: the start.
        overwrite: replace a file that is there.
        max_gaussians: keep the most important ones, see `runs.thinning`.
        report: told what that costs.
        y_down: turn it half around z, as 3D Gaussian Splatting's own files stand; else y is up, and the face looks along +z.

    Raises:
        FileNotFoundError, ValueError: no run, none of a rigged avatar, or a moment outside its motion.
        FileExistsError: the file is there already.
    """
    path = output / SPLAT_NAME
    run, moment = _run_at(load_config, path, timestep, time, overwrite, max_gaussians, report)
    model = run.pipeline.model
    with torch.no_grad():
        gaussians, colors = model.shown_at(moment)
        splats = WorldSplats(gaussians, torch.sigmoid(model.gauss_params["opacities"][:, 0]), colors)
        if y_down:
            splats = splats.moved(_HALF_TURN)
    gaussians, colors = splats.gaussians, splats.colors
    rest = torch.zeros_like(model.gauss_params["features_rest"])
    rest[:, : colors.shape[1] - 1] = colors[:, 1:]
    write_splat_ply(path, gaussians, model.gauss_params["opacities"], colors[:, 0], rest)
    return [path]


def export_glb(
    load_config: Path,
    output: Path,
    timestep: int | None = None,
    time: float | None = None,
    overwrite: bool = False,
    max_gaussians: int | None = None,
    report: Callable[[str], None] = lambda note: None,
) -> list[Path]:
    """Writes one timestep as a glTF file: the Gaussians by KHR_gaussian_splatting, and the head's skinned mesh in scene 1.

    Args and errors are those of `export_splat`.
    """
    from edit3dgs_ns.splats.glb import write_glb
    from edit3dgs_ns.splats.head_rig import head_rig

    path = output / GLB_NAME
    run, moment = _run_at(load_config, path, timestep, time, overwrite, max_gaussians, report)
    model = run.pipeline.model
    with torch.no_grad():
        gaussians, colors = model.shown_at(moment)
        splats = WorldSplats(gaussians, torch.sigmoid(model.gauss_params["opacities"][:, 0]), colors)
    write_glb(path, splats, head_rig(model.head, model.head.pose_at(moment), run.expression_names))
    return [path]


def _run_at(
    load_config: Path,
    path: Path,
    timestep: int | None,
    time: float | None,
    overwrite: bool,
    max_gaussians: int | None,
    report: Callable[[str], None],
) -> tuple[TrainedRun, float]:
    """The run, with the Gaussians that are to be written, and the normalised time; see `export_splat`."""
    from edit3dgs_ns.runs.trained_run import TrainedRun

    config = _require_config(load_config)
    _check_moment(timestep, time)
    refuse_existing((path,), overwrite)
    run = TrainedRun(config)
    moment = _moment(run.pipeline.model.head.num_timesteps - 1, timestep, time)
    if max_gaussians is not None:
        from edit3dgs_ns.runs.thinning import thin

        report(str(thin(run, max_gaussians, moment)))
    return run, moment


def _require_config(path: Path) -> Path:
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingFileError(f"{OPTION} {path}: no such file. Expected {_RUN}.")
    return path


def refuse_existing(paths: Sequence[Path], overwrite: bool) -> None:
    """Raises an ExistingFileError for a file that is there and may not be replaced."""
    for path in paths:
        if path.exists() and not overwrite:
            raise ExistingFileError(f"{path} is there already. Give another --output, or --overwrite.")


def _moment(last: int, timestep: int | None, time: float | None) -> float:
    """The normalised time; `last` is the number of the motion's last timestep."""
    if timestep is not None and timestep > last:
        raise UserError(f"--timestep {timestep}: the avatar's motion has the timesteps 0 to {last}.")
    return timestep / max(last, 1) if timestep is not None else time or 0.0


def _check_moment(timestep: int | None, time: float | None) -> None:
    if timestep is not None and time is not None:
        raise UserError(f"--timestep {timestep} and --time {time}: give one of them.")
    if timestep is not None and timestep < 0:
        raise UserError(f"--timestep {timestep}: expected 0 or more.")
    if time is not None and not 0 <= time <= 1:
        raise UserError(f"--time {time}: expected a normalised time, 0 (start) to 1 (end).")


def _imported_npz(config: Path) -> Path | None:
    """The npz of the avatar that a run imported, or that the run edits; None if the avatar was trained here."""
    own = config.parent / IMPORTED / NPZ_NAME
    if own.is_file():
        return own
    edited = edited_avatar(config)
    if edited is None:
        return None
    run = edited if edited.is_dir() else edited.parent
    for folder in (run, run.parent):
        if (folder / IMPORTED / NPZ_NAME).is_file():
            return folder / IMPORTED / NPZ_NAME
    return None
