"""`edit3dgs import`: an avatar of GaussianAvatars becomes a run of `rigged-splatfacto`, as if it had been trained here.

The run holds a configuration, a checkpoint and `imported/`: the avatar's own flame_param.npz (what `edit3dgs export` writes back
where nothing changed) and, for an avatar without its capture, rendered views of it that stand in for one.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.progress import Progress

from edit3dgs_ns.capture.from_avatar import ViewSettings, write_avatar_capture
from edit3dgs_ns.console import say
from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.errors import ExistingFileError, UserError
from edit3dgs_ns.files import folder_written_beside
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.loading import head_with
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.splats.avatar_files import AvatarFiles, check_avatar, read_avatar
from edit3dgs_ns.splats.avatar_folder import NPZ_NAME
from edit3dgs_ns.splats.checkpoints import CHECKPOINT_FOLDER, write_checkpoint
from edit3dgs_ns.splats.ply import BoundGaussians
from edit3dgs_ns.splats.rig import TrackedHead
from edit3dgs_ns.training.load_avatar import check_avatar_fits
from edit3dgs_ns.training.model import RiggedSplatfactoModel

IMPORTED = "imported"
"""Folder in a run with what came with the avatar."""


def import_avatar(
    source: Path,
    *,
    flame_model: Path | None = None,
    data: Path | None = None,
    output_dir: Path = Path("outputs"),
    name: str | None = None,
    views: ViewSettings | None = None,
    progress: Progress | None = None,
) -> Path:
    """Makes a run of an avatar.

    Args:
        source: folder with point_cloud.ply and flame_param.npz, or GaussianAvatars' output folder.
        flame_model: FLAME's file; None: the environment's FLAME_MODEL_PATH, or the embedded open head if the avatar is bound to it.
        data: the capture that the avatar was trained on; None: rendered views stand in for it.
        output_dir: where runs are.
        name: of the experiment; None: the avatar's folder.
        views: which views are rendered without `data`.
        progress: shows how far rendering is.

    Returns:
        The run's config.yml.

    Raises:
        FileNotFoundError, ValueError: a file is missing, damaged, or does not fit the others; the message names it.
    """
    views = views or ViewSettings()
    views.check()
    avatar = read_avatar(source)
    assets = head_of(avatar, flame_model)
    check_avatar(avatar, assets)
    config = _make_config(avatar, assets, output_dir, name)
    run = config.get_base_dir()
    counts = f"{len(avatar.gaussians):,} Gaussians on {len(assets.faces):,} faces of {assets.source.name}"
    say(f"{counts}, {len(avatar.motion):,} timesteps")
    with _finished_or_gone(run) as unfinished:
        imported = unfinished / IMPORTED
        imported.mkdir()
        shutil.copyfile(avatar.folder / NPZ_NAME, imported / NPZ_NAME)
        if data is None:
            _render_views(imported, avatar, assets, views, progress)
        pipeline = _set_up(config, imported if data is None else data)
        _put_into(pipeline.model, avatar, check_data=data is not None)
        _save_checkpoint(unfinished, pipeline)
        pipeline.datamanager.train_dataparser_outputs.save_dataparser_transform(
            unfinished / "dataparser_transforms.json"
        )
        parser = config.pipeline.datamanager.dataparser
        parser.data = run / IMPORTED if data is None else Path(os.path.abspath(data.expanduser()))
        (unfinished / "config.yml").write_text(yaml.dump(config), "utf8")
    return run / "config.yml"


def head_of(avatar: AvatarFiles, flame_model: Path | None) -> FlameAssets:
    """The head model that an avatar is bound to: the given one, or the embedded one if the avatar has its number of vertices."""
    return head_with(avatar.num_vertices, flame_model)


def avatar_state(
    model: RiggedSplatfactoModel, gaussians: BoundGaussians, head: TrackedHead
) -> dict[str, Any]:
    """A state of `model` that holds an avatar of GaussianAvatars: no offsets and no light that follow the motion."""
    state = {
        key: value
        for key, value in model.state_dict().items()
        if not key.startswith(("gauss_params.", "appearance."))
    }
    for name in ("means", "scales", "quats", "features_dc", "features_rest", "opacities"):
        state[f"gauss_params.{name}"] = getattr(gaussians, name)
    state |= {f"head.{key}": value for key, value in head.state_dict().items()}
    return state | {"binding": gaussians.binding, "sh_degree_reached": torch.tensor(gaussians.sh_degree)}


def _make_config(avatar: AvatarFiles, assets: FlameAssets, output_dir: Path, name: str | None) -> Any:
    from nerfstudio.configs.method_configs import all_methods

    folder = avatar.folder
    if name is None:
        trained = folder.parent.name == "point_cloud"  # GaussianAvatars' <output>/point_cloud/iteration_N
        name = (folder.parent.parent if trained else folder).resolve().name
    if name in ("", ".", "..") or Path(name).name != name:
        raise UserError(f"--name {name!r}: expected the name of one folder, without '/'.")
    config: Any = copy.deepcopy(all_methods["rigged-splatfacto"])
    config.output_dir, config.experiment_name = Path(os.path.abspath(output_dir.expanduser())), name
    config.set_timestamp()
    parser = config.pipeline.datamanager.dataparser
    assert isinstance(parser, NersembleDataParserConfig)
    # By its path, so that the run does not depend on the environment; the open head is named by the data.
    parser.flame_model = None if assets.name == "open-head" else Path(os.path.abspath(assets.source))
    config.pipeline.model.sh_degree = avatar.gaussians.sh_degree
    return config


@contextmanager
def _finished_or_gone(run: Path) -> Iterator[Path]:
    """A folder to make a run in: renamed to `run` at the end, removed if anything fails before."""
    if run.exists():
        raise ExistingFileError(f"{run} is there already. Give another --name or --output-dir.")
    with folder_written_beside(run) as unfinished:
        yield unfinished


def _render_views(
    folder: Path, avatar: AvatarFiles, assets: FlameAssets, views: ViewSettings, progress: Progress | None
) -> None:
    def tracked(steps: Iterator[int], total: int) -> Iterator[int]:
        if progress is None:
            return steps
        return iter(progress.track(steps, total, description="Rendering views"))

    device = "cuda" if torch.cuda.is_available() else "cpu"
    head = TrackedHead(FlameModel.from_assets(assets), avatar.motion).to(device)
    gaussians = BoundGaussians(**{name: value.to(device) for name, value in vars(avatar.gaussians).items()})
    write_avatar_capture(
        folder,
        gaussians,
        head,
        views,
        motion_file=NPZ_NAME,
        head_name=assets.name,
        progress=tracked,
    )


def _set_up(config: Any, data: Path) -> Any:
    """The pipeline on some data, whose set-up writes into its configuration: into a copy of ours."""
    pipeline = copy.deepcopy(config.pipeline)
    pipeline.datamanager.dataparser.data = data
    return pipeline.setup(device="cpu", test_mode="inference")


def _put_into(model: RiggedSplatfactoModel, avatar: AvatarFiles, check_data: bool) -> None:
    head = TrackedHead(model.head.flame, avatar.motion)
    state = avatar_state(model, avatar.gaussians, head)
    if check_data:
        check_avatar_fits(state, model, avatar.folder, "The avatar")
    model.load_state_dict(state)


def _save_checkpoint(run: Path, pipeline: torch.nn.Module) -> None:
    """A checkpoint as Nerfstudio's trainer writes it; training on starts with fresh optimizers."""
    folder = run / CHECKPOINT_FOLDER
    folder.mkdir()
    content = {
        "step": 0,
        "pipeline": pipeline.state_dict(),
        "optimizers": {},
        "schedulers": {},
        "scalers": {},
    }
    write_checkpoint(content, folder / "step-000000000.ckpt")
