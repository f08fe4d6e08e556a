"""Starting from an avatar that another run has trained: found, read safely, and checked against the data at
hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.splats.avatar_state import check_avatar_numbers
from edit3dgs_ns.splats.checkpoints import PLAYS, find_checkpoint, model_state, read_checkpoint
from edit3dgs_ns.training.model import RiggedSplatfactoModel

OPTION = "--pipeline.avatar"
_RUN = "a run of `ns-train rigged-splatfacto`"


def load_avatar(model: RiggedSplatfactoModel, run: Path) -> Path:
    """Load Gaussians and rig parameters of a trained avatar into `model`.

    Args:
        model: built for the data that will be trained on.
        run: the run's folder, its config.yml, its folder of checkpoints, or a checkpoint.

    Returns:
        The checkpoint that was read.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: it holds no avatar, or one that does not fit the data.
    """
    path = find_checkpoint(run, OPTION, _RUN)
    content = read_checkpoint(path, OPTION)
    if (motion := content["pipeline"].get(PLAYS)) is not None:
        raise UserError(
            f"{OPTION} {path} plays {motion}, which the capture's images do not show. Give the run of the avatar itself; "
            "reenactment.json in that run's folder names it."
        )
    state = model_state(content)
    check_avatar_fits(state, model, path)
    model.load_state_dict(state)
    return path


def check_avatar_fits(
    state: Mapping[str, Tensor], model: RiggedSplatfactoModel, path: Path, option: str = OPTION
) -> None:
    """Raise a ValueError that lists all differences between an avatar and the data's head and motion.

    Args:
        state: of the avatar.
        model: built for the data.
        path: of the avatar, for the message.
        option: what gave `path`, for the message.
    """
    if "gauss_params.means" not in state or "binding" not in state or "head.shape" not in state:
        raise UserError(f"{option} {path} holds no rigged avatar. Expected {_RUN}.")
    check_avatar_numbers(state, f"{option} {path}")
    own = model.state_dict()
    differences = []

    def compare(what: str, avatar: int, data: int) -> None:
        if avatar != data:
            differences.append(f"{what}: {avatar} in the avatar, {data} in the data")

    compare("vertices of the head", len(state["head.static_offset"]), len(own["head.static_offset"]))
    compare("shape coefficients", len(state["head.shape"]), len(own["head.shape"]))
    compare("expression coefficients", state["head.pose.expr"].shape[1], own["head.pose.expr"].shape[1])
    compare("timesteps of the motion", len(state["head.pose.expr"]), len(own["head.pose.expr"]))
    num_faces = len(model.head.faces)
    if int(state["binding"].max()) >= num_faces:
        differences.append(
            f"a Gaussian is bound to face {int(state['binding'].max())}; the data's head has {num_faces} faces"
        )
    if not differences:
        for what, name in (
            ("shape of the head", "head.shape"),
            ("static offsets of the head", "head.static_offset"),
        ):
            distance = float((state[name].cpu() - own[name].cpu()).abs().max()) if own[name].numel() else 0.0
            if not distance <= 1e-4:
                differences.append(f"{what}: another person (they differ by up to {distance:.3g})")
    if differences:
        listing = "\n".join(f"  - {line}" for line in differences)
        raise UserError(
            f"{option} {path} does not fit the data:\n{listing}\n"
            "Give the capture that the avatar was trained on (nersemble-data --data DIR, with the same --flame-model), or train an "
            "avatar on this capture first: ns-train rigged-splatfacto-fast nersemble-data --data DIR"
        )


def freeze(parameters: list[torch.nn.Parameter]) -> None:
    """Exclude parameters from training; Adam leaves alone what has no gradient."""
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None
