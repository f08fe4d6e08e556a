"""What an avatar starts from: the tracked head of the data, one Gaussian on every face; and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from nerfstudio.models.splatfacto import num_sh_bases
from torch import Tensor, nn

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.splats.avatar_state import check_avatar_numbers
from edit3dgs_ns.splats.checkpoints import with_current_names
from edit3dgs_ns.splats.rig import OFFSET_BUFFERS
from edit3dgs_ns.splats.spherical_harmonics import degree_of

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras
    from nerfstudio.models.splatfacto import SplatfactoModel

    from edit3dgs_ns.flame.assets import FlameAssets
    from edit3dgs_ns.splats.appearance import PoseDependentAppearance
    from edit3dgs_ns.splats.rig import TrackedHead
    from edit3dgs_ns.training.options import AvatarModelOptions


def refuse_unsupported(config: AvatarModelOptions) -> None:
    """Raises a ValueError for options of Splatfacto that a rigged avatar has no use for."""
    if config.camera_optimizer.mode != "off":
        raise UserError(
            f"--pipeline.model.camera-optimizer.mode {config.camera_optimizer.mode}: "
            "rigged-splatfacto fine-tunes the head's pose instead; use off."
        )
    if config.num_downscales > 0 and config.resolution_schedule < 1:
        raise UserError(
            f"--pipeline.model.resolution-schedule {config.resolution_schedule}: expected steps, at least 1."
        )
    if config.use_bilateral_grid or config.sh_degree < 1 or config.sh_degree > 3:
        raise UserError(
            "rigged-splatfacto has no bilateral grid and needs --pipeline.model.sh-degree between 1 and 3 "
            f"(found use_bilateral_grid={config.use_bilateral_grid}, sh_degree={config.sh_degree})."
        )


def refuse_untimed(camera: Cameras, needed: bool) -> None:
    """Raises a ValueError for cameras without times where they are needed: when a camera path is rendered."""
    if needed and camera.times is None:
        raise UserError(
            '--camera-path-filename: not every camera of this path has a "render_time", so nothing says which times it shows. '
            "Save the path in ns-viewer's Render panel, or add to each of its cameras its time, from 0 to 1. "
            "`edit3dgs orbit` and `edit3dgs reenact` make videos that need no path."
        )


def shared_time(camera: Cameras) -> float | None:
    """Returns the normalised time that cameras have in common; raises a UserError if they have different ones."""
    if camera.times is None:
        return None
    times = camera.times.flatten()
    if float(times.max() - times.min()) > 1e-6:
        raise UserError(f"Cameras rendered together must share one time, found {times.tolist()}.")
    return float(times[0])


def shared_size(camera: Cameras) -> tuple[int, int]:
    """Width and height that cameras have in common; a ValueError if they have different ones."""
    sizes = {(int(w), int(h)) for w, h in zip(camera.width.flatten(), camera.height.flatten(), strict=True)}
    if len(sizes) != 1:
        raise UserError(f"Cameras rendered together must share one image size, found {sorted(sizes)}.")
    return sizes.pop()


def tracked_head(metadata: Mapping[str, Any]) -> TrackedHead:
    """The head that the data parser describes.

    Raises:
        ValueError: the data has no FLAME parameters, or they belong to another head model.
    """
    from edit3dgs_ns.flame.model import FlameModel
    from edit3dgs_ns.splats.rig import TrackedHead

    motion = metadata.get("flame_motion")
    if motion is None:
        raise UserError(
            "This method needs the FLAME parameters of every timestep, and the data has none. Use the data parser "
            "nersemble-data on a capture whose frames have a 'flame_param_path' (VHAP exports them; `edit3dgs capture OUT` "
            "makes a synthetic one)."
        )
    return TrackedHead(FlameModel.from_assets(head_assets(metadata)), motion)


def head_assets(metadata: Mapping[str, Any]) -> FlameAssets:
    """The head model that the data parser names, with its regions."""
    from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
    from edit3dgs_ns.flame.loading import load_assets

    path = metadata.get("flame_model_path")
    if path is None and metadata.get("head") == "open-head":
        path = OPEN_HEAD_PATH  # a synthetic capture says which head it shows: FLAME_MODEL_PATH does not apply to it
    return load_assets(path)


def has_one_camera(metadata: Mapping[str, Any]) -> bool:
    """Whether all training images were taken by the same camera; False where the data does not say."""
    cameras = metadata.get("camera_indices")
    return cameras is not None and len(torch.unique(cameras)) == 1


def initial_gaussians(
    head: TrackedHead, config: AvatarModelOptions
) -> tuple[dict[str, nn.Parameter], Int[Tensor, " gaussians"]]:
    """Grey Gaussians on every face, as large as their share of it, and the face of each."""
    from edit3dgs_ns.splats.initialisation import even_start

    vertices = head.canonical_vertices().detach()
    binding, means, scales = even_start(vertices, head.faces, head.rest_frames(), config.initial_spacing)
    count = len(binding)
    quats = torch.zeros(count, 4)
    quats[:, 0] = 1
    values = {
        "means": means,
        "scales": scales,
        "quats": quats,
        "features_dc": torch.zeros(count, 3),
        "features_rest": torch.zeros(count, num_sh_bases(config.sh_degree) - 1, 3),
        "opacities": torch.logit(torch.full((count, 1), config.initial_opacity)),
    }
    if config.expression_rank:
        values["expression_means"] = torch.zeros(count, config.expression_rank, 3)
        values["expression_colors"] = torch.zeros(count, config.expression_rank, 3)
    return {name: nn.Parameter(value) for name, value in values.items()}, binding


def training_timesteps(head: TrackedHead, metadata: Mapping[str, Any]) -> Int[Tensor, " timesteps"]:
    """Places of the training images on the motion, each once; all timesteps where the data does not say."""
    timesteps = metadata.get("timesteps")
    return torch.arange(head.num_timesteps) if timesteps is None else torch.unique(timesteps)


def initial_appearance(
    head: TrackedHead, config: AvatarModelOptions, timesteps: Int[Tensor, " timesteps"]
) -> PoseDependentAppearance:
    """Pose-dependent appearance without relighting yet; its code is that of the motion at `timesteps`."""
    from edit3dgs_ns.splats.appearance import PoseDependentAppearance
    from edit3dgs_ns.splats.motion_code import motion_features, principal_code

    features = motion_features(head.motion().pose())
    code = principal_code(features, timesteps, config.expression_rank)
    appearance = PoseDependentAppearance(head.rest_frames(), *code)
    appearance.relights = config.relighting
    return appearance


def take_over_appearance(model: SplatfactoModel, state: Mapping[str, Any]) -> dict[str, Any]:
    """Gives `model` the expression-dependent parameters that an avatar has, and takes those that it lacks.

    An avatar may come from another method or from GaussianAvatars: what it was trained with decides, not the options of the run
    that loads it. To be called before optimizers are built; later, nothing changes any more.

    Returns:
        The state, complete.
    """
    complete = with_current_names(state)
    own = model.state_dict(keep_vars=True)
    if (
        rest := complete.get("gauss_params.features_rest")
    ) is not None:  # older versions always used all that there is
        complete.setdefault("sh_degree_reached", torch.tensor(degree_of(1 + rest.shape[1])))
    for name in OFFSET_BUFFERS:  # older versions know no offset of expression
        unset = torch.ones_like if name == "offset_scale" else torch.zeros_like
        complete.setdefault(f"head.{name}", unset(own[f"head.{name}"]))
    complete.setdefault("appearance.light", torch.zeros_like(own["appearance.light"]))
    complete.setdefault("appearance.code_mean", own["appearance.code_mean"])
    complete.setdefault("appearance.code_basis", own["appearance.code_basis"][:, :0])
    for name in ("expression_means", "expression_colors"):
        saved = complete.get(f"gauss_params.{name}")
        if saved is None and name in model.gauss_params:
            del model.gauss_params[name]
        elif saved is not None and name not in model.gauss_params:
            model.gauss_params[name] = nn.Parameter(torch.zeros_like(saved, device=model.device))
    return complete


def check_avatar_state(state: Mapping[str, Any], head: TrackedHead) -> None:
    """Raises a ValueError when `state` is no rigged avatar, or one of another head model."""
    if "gauss_params.means" not in state or "binding" not in state:
        raise UserError(
            "The checkpoint holds no rigged avatar (no bound Gaussians). Train one with `ns-train rigged-splatfacto-fast`."
        )
    if "head.static_offset" not in state:
        raise UserError("The checkpoint holds no rigged avatar (no head.static_offset).")
    num_vertices, num_faces = len(state["head.static_offset"]), len(head.faces)
    if num_vertices != head.flame.num_vertices:
        raise UserError(
            f"The avatar in the checkpoint is bound to a head of {num_vertices} vertices, the data's head model has "
            f"{head.flame.num_vertices} (and {num_faces} faces). Give both the same --flame-model."
        )
    check_avatar_numbers(state, "The checkpoint", num_faces)
