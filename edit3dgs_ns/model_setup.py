"""What an avatar starts from: the tracked head of the data, one Gaussian on every face; and what it refuses to start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from nerfstudio.models.splatfacto import num_sh_bases
from torch import nn

if TYPE_CHECKING:
    from edit3dgs_ns.model import RiggedSplatfactoModelConfig
    from edit3dgs_ns.splats.rig import TrackedHead


def refuse_unsupported(config: RiggedSplatfactoModelConfig) -> None:
    """Raises a ValueError for options of Splatfacto that a rigged avatar has no use for."""
    if config.camera_optimizer.mode != "off":
        raise ValueError(
            f"--pipeline.model.camera-optimizer.mode {config.camera_optimizer.mode}: "
            "rigged-splatfacto fine-tunes the head's pose instead; use off."
        )
    if config.use_bilateral_grid or config.sh_degree < 1 or config.sh_degree > 3:
        raise ValueError(
            "rigged-splatfacto has no bilateral grid and needs --pipeline.model.sh-degree between 1 and 3 "
            f"(found use_bilateral_grid={config.use_bilateral_grid}, sh_degree={config.sh_degree})."
        )


def tracked_head(metadata: Mapping[str, Any]) -> TrackedHead:
    """The head that the data parser describes.

    Raises:
        ValueError: the data has no FLAME parameters, or they belong to another head model.
    """
    from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH, load_assets
    from edit3dgs_ns.flame.model import FlameModel
    from edit3dgs_ns.splats.rig import TrackedHead

    motion = metadata.get("flame_motion")
    if motion is None:
        raise ValueError(
            "This method needs the FLAME parameters of every timestep, and the data has none. Use the data parser "
            "nersemble-data on a capture whose frames have a 'flame_param_path' (VHAP exports them; `edit3dgs capture OUT` "
            "makes a synthetic one)."
        )
    path = metadata.get("flame_model_path")
    if path is None and metadata.get("head") == "open-head":
        path = OPEN_HEAD_PATH  # a synthetic capture says which head it shows: FLAME_MODEL_PATH does not apply to it
    return TrackedHead(FlameModel.from_assets(load_assets(path)), motion)


def initial_gaussians(num_faces: int, config: RiggedSplatfactoModelConfig) -> dict[str, nn.Parameter]:
    """One grey Gaussian on every face: at its centre, as large as the face."""
    quats = torch.zeros(num_faces, 4)
    quats[:, 0] = 1
    return {
        "means": nn.Parameter(torch.zeros(num_faces, 3)),
        "scales": nn.Parameter(torch.zeros(num_faces, 3)),
        "quats": nn.Parameter(quats),
        "features_dc": nn.Parameter(torch.zeros(num_faces, 3)),
        "features_rest": nn.Parameter(torch.zeros(num_faces, num_sh_bases(config.sh_degree) - 1, 3)),
        "opacities": nn.Parameter(torch.logit(torch.full((num_faces, 1), config.initial_opacity))),
    }


def check_avatar_state(state: Mapping[str, Any], head: TrackedHead) -> None:
    """Raises a ValueError when `state` is no rigged avatar, or one of another head model."""
    if "gauss_params.means" not in state or "binding" not in state:
        raise ValueError(
            "The checkpoint holds no rigged avatar (no bound Gaussians). Train one with `ns-train rigged-splatfacto`."
        )
    num_vertices, num_faces = len(state["head.static_offset"]), len(head.faces)
    if num_vertices != head.flame.num_vertices or int(state["binding"].max()) >= num_faces:
        raise ValueError(
            f"The avatar in the checkpoint is bound to a head of {num_vertices} vertices, the data's head model has "
            f"{head.flame.num_vertices} (and {num_faces} faces). Give both the same --flame-model."
        )
