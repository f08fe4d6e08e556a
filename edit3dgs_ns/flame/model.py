"""The FLAME layer: coefficients -> vertices, in stages that are types.

`FlameModel` (the head model) -> `ShapedHead` (one identity) -> vertices of any number of poses. A head
without a shape cannot be posed, and a shape that was computed once serves every frame.

Conventions: metres; y up, z out of the face, x to the subject's left. Poses are axis-angle, in radians.
Joints: global, neck, jaw, left eye, right eye; the global joint turns the head about its own place,
``translation`` comes after. Any number of
vertices: it comes from the file. Formula: Li et al., "Learning a model of facial shape and expression from 4D
scans" (FLAME), 2017, equations 1 to 4 (those of SMPL).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.rotations import axis_angle_to_matrix


@dataclass(frozen=True)
class FlamePose:
    """Expression and pose of T frames; the joints' rotations are axis-angle in radians."""

    expr: Float[Tensor, "T E"]
    """Expression coefficients; E may be less than the model has."""
    rotation: Float[Tensor, "T 3"]
    """Global rotation."""
    neck_pose: Float[Tensor, "T 3"]
    """Rotation of the head on the neck."""
    jaw_pose: Float[Tensor, "T 3"]
    """Rotation of the jaw; +x opens the mouth."""
    eyes_pose: Float[Tensor, "T 6"]
    """Rotation of the left eye, then of the right eye; +x looks down, +y to the subject's left."""
    translation: Float[Tensor, "T 3"]
    """Metres, added after everything else."""


@dataclass(frozen=True)
class ShapedHead:
    """A head model with one identity: its rest vertices and joints."""

    model: FlameModel
    v_shaped: Float[Tensor, "V 3"]
    """Rest vertices without expression (metres)."""

    def posed(self, pose: FlamePose) -> Float[Tensor, "T V 3"]:
        """Vertices of each frame, differentiable in the shape and in every field of the pose.

        Raises:
            ValueError: more expression coefficients than the model has.
        """
        model = self.model
        frames = pose.expr.shape[0]
        exprdirs = model.leading_directions(model.exprdirs, pose.expr, "expression")
        offsets = torch.einsum("vce,te->tvc", exprdirs, pose.expr)
        v_expressed = self.v_shaped + offsets
        # Joints come from the shape and the expression together, as in FLAME's own code.
        joints = torch.einsum("jv,tvc->tjc", model.J_regressor, v_expressed)

        axis_angles = torch.cat([pose.rotation, pose.neck_pose, pose.jaw_pose, pose.eyes_pose], dim=1)
        rotations = axis_angle_to_matrix(axis_angles.reshape(frames, -1, 3))
        assert rotations.shape == (frames, len(model.parents), 3, 3)
        feature = rotations[:, 1:] - torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        if model.has_posedirs:
            v_expressed = v_expressed + torch.einsum(
                "vcp,tp->tvc", model.posedirs, feature.reshape(frames, -1)
            )

        world_from_rest = _chain(rotations, joints, model.parents)
        blended = torch.einsum("vj,tjrc->tvrc", model.weights, world_from_rest)
        vertices = torch.einsum("tvrc,tvc->tvr", blended[..., :3], v_expressed) + blended[..., 3]
        return vertices + pose.translation[:, None]


class FlameModel(nn.Module):
    """A FLAME-like head as buffers on a device; has no parameters of its own."""

    faces: Int[Tensor, "F 3"]
    v_template: Float[Tensor, "V 3"]
    shapedirs: Float[Tensor, "V 3 S"]
    exprdirs: Float[Tensor, "V 3 E"]
    posedirs: Float[Tensor, "V 3 P"]
    J_regressor: Float[Tensor, "J V"]
    weights: Float[Tensor, "V J"]

    def __init__(self, assets: FlameAssets):
        super().__init__()
        if assets.weights.shape[1] != 5:
            raise UserError(
                f"{assets.source}: has {assets.weights.shape[1]} joints, expected FLAME's 5 "
                "(global, neck, jaw, left eye, right eye)"
            )
        # Not in checkpoints: the licensed FLAME stays in its own file, and checkpoints stay small.
        for name in ("faces", "v_template", "shapedirs", "exprdirs", "posedirs", "J_regressor", "weights"):
            self.register_buffer(name, torch.from_numpy(getattr(assets, name).copy()), persistent=False)
        self.expression_names = assets.expression_names
        self.parents: tuple[int, ...] = tuple(assets.parents.tolist())
        self.has_posedirs = bool((assets.posedirs != 0).any())

    @classmethod
    def from_assets(cls, assets: FlameAssets) -> FlameModel:
        """The model of what `load_assets` read."""
        return cls(assets)

    @property
    def num_vertices(self) -> int:
        """V."""
        return self.v_template.shape[0]

    @property
    def num_shape(self) -> int:
        """S."""
        return self.shapedirs.shape[2]

    @property
    def num_expr(self) -> int:
        """E."""
        return self.exprdirs.shape[2]

    def leading_directions(
        self, directions: Float[Tensor, "V 3 D"], coefficients: Float[Tensor, "*batch K"], what: str
    ) -> Float[Tensor, "V 3 K"]:
        """The first K directions, for K given coefficients (missing ones count as zero).

        Raises:
            ValueError: K exceeds D.
        """
        given, known = coefficients.shape[-1], directions.shape[-1]
        if given > known:
            raise UserError(
                f"{given} {what} coefficients for a head model that has {known} {what} directions. The "
                "parameters belong to "
                "another head model: name it by the path option or FLAME_MODEL_PATH, or cut the coefficients."
            )
        return directions[..., :given]

    def shaped(
        self, shape: Float[Tensor, " S"], static_offset: Float[Tensor, "V 3"] | None = None
    ) -> ShapedHead:
        """Gives the head an identity.

        Args:
            shape: shape coefficients; fewer than the model has are filled up with zeros.
            static_offset: per-vertex displacement in metres, or None.

        Raises:
            ValueError: too many coefficients, or an offset for another number of vertices.
        """
        directions = self.leading_directions(self.shapedirs, shape, "shape")
        v_shaped = self.v_template + torch.einsum("vcs,s->vc", directions, shape)
        if static_offset is not None:
            if static_offset.shape != v_shaped.shape:
                raise UserError(
                    f"static_offset has shape {tuple(static_offset.shape)}, expected ({self.num_vertices}, 3): it belongs to "
                    "another head model. (VHAP's offsets are for FLAME with teeth, 5143 vertices.)"
                )
            v_shaped = v_shaped + static_offset
        return ShapedHead(self, v_shaped)

    def forward(
        self,
        shape: Float[Tensor, " S"],
        static_offset: Float[Tensor, "V 3"] | None,
        expr: Float[Tensor, "T E"],
        rotation: Float[Tensor, "T 3"],
        neck_pose: Float[Tensor, "T 3"],
        jaw_pose: Float[Tensor, "T 3"],
        eyes_pose: Float[Tensor, "T 6"],
        translation: Float[Tensor, "T 3"],
    ) -> Float[Tensor, "T V 3"]:
        """Coefficients -> vertices of T frames (metres); see `shaped` and `ShapedHead.posed`."""
        pose = FlamePose(expr, rotation, neck_pose, jaw_pose, eyes_pose, translation)
        return self.shaped(shape, static_offset).posed(pose)


def _chain(
    rotations: Float[Tensor, "T J 3 3"], joints: Float[Tensor, "T J 3"], parents: tuple[int, ...]
) -> Float[Tensor, "T J 3 4"]:
    """Rest-to-posed transform of each joint: the kinematic chain, with the rest position taken out."""
    world_R: list[Tensor] = [rotations[:, 0]]
    world_t: list[Tensor] = [joints[:, 0]]
    for j in range(1, len(parents)):
        p = parents[j]
        world_t.append(torch.einsum("trc,tc->tr", world_R[p], joints[:, j] - joints[:, p]) + world_t[p])
        world_R.append(world_R[p] @ rotations[:, j])
    R = torch.stack(world_R, dim=1)
    t = torch.stack(world_t, dim=1) - torch.einsum("tjrc,tjc->tjr", R, joints)
    return cast(Tensor, torch.cat([R, t[..., None]], dim=-1))
