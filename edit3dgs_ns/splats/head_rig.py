"""The head of an avatar as skinning programs take it: a mesh with joints and morph targets, as it stands at one pose.

FLAME in the terms of glTF, exact at the pose: what glTF has no word for (pose-dependent correctives, expressions without a morph
target, joints that follow the expression) is added to the mesh at rest with the values of that pose. Metres; y up, the face looks
along +z, as in glTF.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.flame.rotations import axis_angle_to_matrix
from edit3dgs_ns.splats.binding import rotmat_to_quat
from edit3dgs_ns.splats.rig import TrackedHead

JOINT_NAMES = ("root", "neck", "jaw", "left_eye", "right_eye")
"""FLAME's joints."""
_STRONGEST = 20
"""Morph targets of a head whose expressions have no names."""
_INFLUENCES = 4
"""Joints a vertex, in glTF."""


@dataclass(frozen=True)
class HeadRig:
    """Vertex of a pose: sum over joints of weight x joint_world x translate(-joint) x (vertex + sum of value x target)."""

    vertices: Float[np.ndarray, "vertices 3"]
    """At rest."""
    faces: Int[np.ndarray, "faces 3"]
    joint_indices: Int[np.ndarray, "vertices 4"]
    joint_weights: Float[np.ndarray, "vertices 4"]
    """Rows sum to 1."""
    joints: Float[np.ndarray, "joints 3"]
    """Places at rest."""
    parents: tuple[int, ...]
    """-1 for the root."""
    rotations: Float[np.ndarray, "joints 4"]
    """Of each joint against its parent at the pose, wxyz."""
    translation: Float[np.ndarray, " 3"]
    """Of the root at the pose, after its rotation about its own place."""
    targets: Float[np.ndarray, "targets vertices 3"]
    """Displacement of each vertex per unit."""
    target_names: tuple[str, ...]
    target_values: Float[np.ndarray, " targets"]
    """At the pose."""


@torch.no_grad()
def head_rig(head: TrackedHead, pose: FlamePose, names: Sequence[str] | None = None) -> HeadRig:
    """The rig of a head, standing at a pose.

    Args:
        head: the head; its identity.
        pose: one frame of a motion; the rig stands at it under the head's offset of expression.
        names: of the head's expressions: all of them become morph targets. None: the strongest 20, called expression_0 and so on.
    """
    flame, pose = head.flame, head.under_offset(pose)
    directions = flame.exprdirs.permute(2, 0, 1)
    values = directions.new_zeros(len(directions))
    values[: pose.expr.shape[1]] = pose.expr[0]
    expressed = flame.shaped(head.shape, head.static_offset).v_shaped
    expressed = expressed + torch.einsum("e,evc->vc", values, directions)
    joints = flame.J_regressor @ expressed
    angles = torch.cat([pose.rotation, pose.neck_pose, pose.jaw_pose, pose.eyes_pose], dim=1).reshape(-1, 3)
    rotations = axis_angle_to_matrix(angles)
    feature = (rotations[1:] - torch.eye(3).to(rotations)).flatten()
    rest = expressed + torch.einsum("vcp,p->vc", flame.posedirs, feature)

    strongest = directions.flatten(1).norm(dim=1).topk(min(_STRONGEST, len(directions))).indices
    chosen = torch.arange(len(names)) if names else strongest.sort().values.cpu()
    targets = directions[chosen]
    rest = rest - torch.einsum("e,evc->vc", values[chosen], targets)
    weights, indices = flame.weights.topk(_INFLUENCES, dim=1)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return HeadRig(
        vertices=_numpy(rest),
        faces=head.faces.cpu().numpy(),
        joint_indices=torch.where(weights > 0, indices, 0).cpu().numpy(),
        joint_weights=_numpy(weights),
        joints=_numpy(joints),
        parents=flame.parents,
        rotations=_numpy(rotmat_to_quat(rotations)),
        translation=_numpy(pose.translation[0]),
        targets=_numpy(targets),
        target_names=tuple(names) if names else tuple(f"expression_{index}" for index in chosen.tolist()),
        target_values=_numpy(values[chosen]),
    )


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
