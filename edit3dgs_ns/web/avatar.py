"""An avatar as the arrays of a web page: its Gaussians, the rig of its head, a motion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.splats.ply import MIN_LOG_SCALE
from edit3dgs_ns.splats.rig import POSE_PARAMETERS, TrackedHead
from edit3dgs_ns.splats.rigged_gaussians import RiggedGaussians, colors_of_degree
from edit3dgs_ns.web.rig import WebMotion, WebRig
from edit3dgs_ns.web.scene import WebGaussians

_JOINT_FEATURES = 12
"""Of `splats.motion_code.motion_features`: jaw, neck and both eyes."""


@torch.no_grad()
def web_gaussians(avatar: RiggedGaussians) -> WebGaussians:
    """The Gaussians of an avatar, and what their colours follow."""
    params, appearance = avatar.params, avatar.appearance
    rank = appearance.rank if "expression_means" in params else 0
    none = torch.zeros(len(avatar.binding), 0, 3)
    # No scale under MIN_LOG_SCALE on the head at rest; a collapsed triangle keeps its Gaussians small.
    sizes = avatar.head.rest_frames().size[avatar.binding].clamp_min(1e-5)
    mean, basis = _code(avatar, rank)
    return WebGaussians(
        binding=avatar.binding.cpu().numpy(),
        means=_numpy(params["means"]),
        quats=_numpy(params["quats"]),
        scales=_numpy(params["scales"].maximum((MIN_LOG_SCALE - sizes.log())[:, None])),
        opacities=_numpy(torch.sigmoid(params["opacities"][:, 0])),
        colors=_numpy(colors_of_degree(params, avatar.sh_degree)),
        mean_offsets=_numpy(params["expression_means"] if rank else none),
        color_offsets=_numpy(params["expression_colors"] if rank else none),
        code_mean=mean,
        code_basis=basis,
        light=_numpy(appearance.light),
    )


@torch.no_grad()
def web_rig(
    head: TrackedHead,
    names: Sequence[str] | None,
    action_expr: Float[Tensor, "actions coefficients"],
    action_jaw: Float[Tensor, "actions 3"],
) -> WebRig:
    """The rig of a head, its identity applied.

    Args:
        head: the head.
        names: of its expression coefficients, where they have names.
        action_expr: expression of each of ARKit's 52 actions; no rows where the head knows none.
        action_jaw: rotation of the jaw in each of them, axis-angle.
    """
    flame = head.flame
    rest, directions = head.canonical_vertices(), flame.exprdirs.permute(2, 0, 1)
    correctives = flame.posedirs.permute(2, 0, 1) if flame.has_posedirs else flame.posedirs.new_zeros(0, 0, 3)
    return WebRig(
        vertices=_numpy(rest),
        faces=head.faces.cpu().numpy(),
        directions=_numpy(directions),
        correctives=_numpy(correctives),
        weights=_numpy(flame.weights),
        joints=_numpy(flame.J_regressor @ rest),
        joint_directions=_numpy(torch.einsum("jv,evc->ejc", flame.J_regressor, directions)),
        parents=flame.parents,
        normals=_numpy(head.rest_frames().rotation[..., 1]),
        names=None if names is None else tuple(names),
        action_expr=_numpy(action_expr),
        action_jaw=_numpy(action_jaw),
    )


def web_motion(motion: FlameMotion, num_expr: int) -> WebMotion:
    """A motion with as many expression coefficients as the head has."""
    rows = {name: _numpy(getattr(motion, name)) for name in POSE_PARAMETERS}
    rows["expr"] = np.pad(rows["expr"], ((0, 0), (0, num_expr - rows["expr"].shape[1])))
    return WebMotion(**rows)


def _code(
    avatar: RiggedGaussians, rank: int
) -> tuple[Float[np.ndarray, " features"], Float[np.ndarray, "features rank"]]:
    """Mean and basis of the expression's code, for as many coefficients as the head has."""
    mean, basis = _numpy(avatar.appearance.code_mean), _numpy(avatar.appearance.code_basis)[:, :rank]
    tracked = len(mean) - _JOINT_FEATURES
    missing = avatar.head.flame.num_expr - tracked
    mean = np.insert(mean, [tracked] * missing, 0.0)
    return mean, np.insert(basis, [tracked] * missing, 0.0, axis=0)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
