"""Backgrounds from files: a run of `ns-train splatfacto`, or a splat in a .ply. Needs no Nerfstudio.

Nothing in these files is run: checkpoints hold tensors and numbers, and of config.yml, which names Python classes, the plain values
are read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.runs.placement import OPTION as TRANSFORM_OPTION
from edit3dgs_ns.runs.placement import Placement, read_normalisation, read_placement
from edit3dgs_ns.runs.scene_options import SceneOptions
from edit3dgs_ns.splats.checkpoints import CHECKPOINT_FOLDER, find_checkpoint, model_state, read_checkpoint
from edit3dgs_ns.splats.run_config import read_plain_yaml
from edit3dgs_ns.splats.similarity import Similarity

if TYPE_CHECKING:
    from torch import Tensor

    from edit3dgs_ns.splats.world_splats import Backdrop, WorldSplats

OPTION = "--background"
_WHAT = "a run of `ns-train splatfacto` (its config.yml or folder), or a splat (.ply)"


def read_background(options: SceneOptions) -> Backdrop | None:
    """The background that `--background` and `--background-transform` ask for; None if there is none.

    Args:
        options: what is given; a run also by its folder or a checkpoint. Without a transform (see `placement`) the background's
            coordinates are the head's world.

    Raises:
        FileNotFoundError, ValueError: something is missing, damaged or no such thing.
    """
    from edit3dgs_ns.splats.world_splats import Backdrop

    path, transform = options.background, options.background_transform
    if path is None:
        if transform is not None:
            raise UserError(f"{TRANSFORM_OPTION} {transform} places a background: give {OPTION} as well.")
        return None
    path = Path(path).expanduser()
    placement = Placement(Similarity()) if transform is None else read_placement(Path(transform).expanduser())
    if path.suffix.lower() == ".ply":
        if placement.coordinates == "data":
            raise UserError(
                f'{TRANSFORM_OPTION} {transform} has "coordinates": "data", but a .ply does not say how its data was normalised. '
                f"Give the run itself as {OPTION}."
            )
        return Backdrop(_read_ply(path), placement.head_from_background, str(path))
    checkpoint = find_checkpoint(path, OPTION, _WHAT)
    head_from_scene = placement.head_from_background
    if placement.coordinates == "data":
        head_from_scene = head_from_scene @ read_normalisation(_run_of(checkpoint)).inverse()
    return Backdrop(_read_run(checkpoint), head_from_scene, str(path))


def drawn_otherwise(backdrop: Backdrop, rasterize_mode: str) -> str | None:
    """What to tell the user when a background was trained to be drawn in another way than the avatar; None if not.

    Args:
        backdrop: from `read_background`.
        rasterize_mode: the avatar's. One pass has one mode.
    """
    path = Path(backdrop.source)
    if path.suffix.lower() == ".ply":
        return None
    own = _model_options(_run_of(find_checkpoint(path, OPTION, _WHAT))).get("rasterize_mode", rasterize_mode)
    if own == rasterize_mode:
        return None
    return (
        f"The background was trained with --pipeline.model.rasterize-mode {own}, the avatar with {rasterize_mode}, in which both "
        "are drawn: fine structures of the background look a little bolder or fainter than in its own renders."
    )


def scene_name(source: Path) -> str:
    """What a background is called: its run's experiment (EXPERIMENT/METHOD/DATE), or its file."""
    if source.suffix.lower() == ".ply":
        return source.stem
    run = Path(os.path.abspath(source.expanduser()))
    run = run.parent if run.suffix in (".yml", ".ckpt") else run
    run = run.parent if run.name == CHECKPOINT_FOLDER else run
    return run.parents[1].name if len(run.parents) > 2 else run.name


def _read_ply(path: Path) -> WorldSplats:
    from edit3dgs_ns.splats.ply import read_splat_ply

    return read_splat_ply(path, OPTION)


def _read_run(checkpoint: Path) -> WorldSplats:
    """Splatfacto's Gaussians in the coordinates of its training."""
    from edit3dgs_ns.splats.world_splats import GAUSSIAN_PARAMETERS, WorldSplats

    state = model_state(read_checkpoint(checkpoint, OPTION))
    where = f"{OPTION} {checkpoint}"
    if "binding" in state:
        raise UserError(
            f"{where} holds a head avatar, whose Gaussians move with a head; a background stands still. `edit3dgs export --format "
            f"ply` makes a splat of one timestep of it. Expected {_WHAT}."
        )
    parameters = {name: state.get(f"gauss_params.{name}") for name in GAUSSIAN_PARAMETERS}
    missing = [name for name, value in parameters.items() if value is None]
    if missing:
        raise UserError(
            f"{where} is no run of splatfacto: it has no {', '.join(missing)} of Gaussians. Expected {_WHAT}."
        )
    found: dict[str, Tensor] = {
        name: value.float() for name, value in parameters.items() if value is not None
    }
    _check_shapes(found, where)
    return WorldSplats.from_parameters(_as_harmonics(found), where)


def _check_shapes(parameters: Mapping[str, Tensor], where: str) -> None:
    count = len(parameters["means"])
    widths = {"means": 3, "scales": 3, "quats": 4, "features_dc": 3, "opacities": 1}
    shapes: dict[str, tuple[int, ...]] = {name: (count, width) for name, width in widths.items()}
    rest = parameters["features_rest"]
    shapes["features_rest"] = (count, rest.shape[1] if rest.ndim == 3 else 0, 3)
    wrong = [
        f"{name} {tuple(parameters[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if tuple(parameters[name].shape) != shape
    ]
    if wrong or not count:
        raise UserError(f"{where} is damaged: {'; '.join(wrong) or 'it has no Gaussians'}.")


def _as_harmonics(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Splatfacto trained with sh_degree 0 shows sigmoid(features_dc) instead of 1/2 + B_0 features_dc."""
    from edit3dgs_ns.splats.spherical_harmonics import plain_colors

    if parameters["features_rest"].shape[1]:
        return parameters
    return parameters | {"features_dc": plain_colors(parameters["features_dc"].sigmoid())[:, 0]}


def _run_of(checkpoint: Path) -> Path:
    folder = checkpoint.parent
    return folder.parent if folder.name == CHECKPOINT_FOLDER else folder


def _model_options(run: Path) -> dict[str, Any]:
    """`pipeline.model` in a run's config.yml as plain values; {} where there is no such file."""
    path = run / "config.yml"
    if not path.is_file():
        return {}
    content = read_plain_yaml(path)
    for name in ("pipeline", "model"):
        content = content.get(name) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}
