"""Positions of a few points on a posed head, and their derivatives, without posing the whole head.

A tracked landmark is a point in a triangle. Only the corners of the landmarks' triangles are posed: a few hundred vertices of
thousands. The model is that of `flame.model`, linear blend skinning of template, shape and expression (Li et al., FLAME, 2017,
equations 1 to 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.rotations import axis_angle_to_matrix

NUM_JOINTS = 5
ROTATION, TRANSLATION, NECK, JAW, EYES = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12), slice(12, 18)
NUM_POSE = 18
"""Columns of a row of frame parameters: rotation, translation, neck, jaw, left and right eye, then the expression."""


@dataclass(frozen=True)
class SurfacePoints:
    """L points of a head model, as barycentric combinations of corners."""

    barycentric: Float[Tensor, "L 3"]
    template: Float[Tensor, "L 3 3"]
    """Rest positions of each point's three corners (second axis), metres."""
    shapedirs: Float[Tensor, "L 3 3 S"]
    exprdirs: Float[Tensor, "L 3 3 E"]
    posedirs: Float[Tensor, "L 3 3 P"] | None
    weights: Float[Tensor, "L 3 J"]
    joints: Float[Tensor, "J 3"]
    joint_shapedirs: Float[Tensor, "J 3 S"]
    joint_exprdirs: Float[Tensor, "J 3 E"]
    parents: tuple[int, ...]

    @classmethod
    def of(
        cls, model: FlameModel, faces: Int[Tensor, " L"], barycentric: Float[Tensor, "L 3"]
    ) -> SurfacePoints:
        """The points `barycentric` of `faces` on `model`, in float64."""
        corners = model.faces[faces]
        regressor = model.J_regressor.double()
        return cls(
            barycentric=barycentric.double(),
            template=model.v_template[corners].double(),
            shapedirs=model.shapedirs[corners].double(),
            exprdirs=model.exprdirs[corners].double(),
            posedirs=model.posedirs[corners].double() if model.has_posedirs else None,
            weights=model.weights[corners].double(),
            joints=regressor @ model.v_template.double(),
            joint_shapedirs=torch.einsum("jv,vcs->jcs", regressor, model.shapedirs.double()),
            joint_exprdirs=torch.einsum("jv,vce->jce", regressor, model.exprdirs.double()),
            parents=model.parents,
        )

    def positions(self, shape: Float[Tensor, " S"], frames: Float[Tensor, "T D"]) -> Float[Tensor, "T L 3"]:
        """World positions of every point in T frames (metres).

        Args:
            shape: shape coefficients, all of the model's.
            frames: rows of `NUM_POSE` pose values and all expression coefficients.
        """
        return self._posed(shape, frames).positions

    def jacobian(self, shape: Float[Tensor, " S"], frames: Float[Tensor, "T D"]) -> PointsJacobian:
        """Positions with their derivatives for the frame parameters and the shape."""
        posed = self._posed(shape, frames)
        by_expr = posed.linear(self, self.exprdirs, self.joint_exprdirs)
        by_shape = posed.linear(self, self.shapedirs, self.joint_shapedirs)
        by_pose = [posed.turned(self, joint) for joint in range(NUM_JOINTS)]
        identity = torch.eye(3, dtype=frames.dtype).expand(*posed.positions.shape[:2], 3, 3)
        by_frame = torch.cat([by_pose[0], identity, *by_pose[1:], by_expr], dim=-1)
        return PointsJacobian(posed.positions, by_frame, by_shape)

    def _posed(self, shape: Tensor, frames: Tensor) -> _Posed:
        expr = frames[:, NUM_POSE:]
        corners = self.template + self.shapedirs @ shape + torch.einsum("lkce,te->tlkc", self.exprdirs, expr)
        joints = self.joints + self.joint_shapedirs @ shape
        joints = joints + torch.einsum("jce,te->tjc", self.joint_exprdirs, expr)
        order = torch.cat([frames[:, ROTATION], frames[:, NECK], frames[:, JAW], frames[:, EYES]], dim=1)
        axis_angles = order.unflatten(1, (NUM_JOINTS, 3))
        local = axis_angle_to_matrix(axis_angles)
        if self.posedirs is not None:
            feature = (local[:, 1:] - torch.eye(3, dtype=frames.dtype)).flatten(1)
            corners = corners + torch.einsum("lkcp,tp->tlkc", self.posedirs, feature)
        R, places = [local[:, 0]], [joints[:, 0]]
        for j in range(1, NUM_JOINTS):
            p = self.parents[j]
            places.append((R[p] @ (joints[:, j] - joints[:, p])[..., None])[..., 0] + places[p])
            R.append(R[p] @ local[:, j])
        world_R, world_joints = torch.stack(R, dim=1), torch.stack(places, dim=1)
        offsets = world_joints - torch.einsum("tjrc,tjc->tjr", world_R, joints)
        # What each joint's motion makes of a point alone, before blending: the derivatives need them apart.
        weighted = torch.einsum("lk,lkj->lkj", self.barycentric, self.weights)
        moved = torch.einsum("lkj,tjrc,tlkc->tljr", weighted, world_R, corners)
        shares = weighted.sum(1)
        moved = moved + shares[None, :, :, None] * offsets[:, None]
        positions = moved.sum(2) + frames[:, None, TRANSLATION]
        return _Posed(positions, moved, shares, axis_angles, local, world_R, world_joints)


@dataclass(frozen=True)
class PointsJacobian:
    """Positions of L points in T frames, and how they move with the parameters."""

    positions: Float[Tensor, "T L 3"]
    by_frame: Float[Tensor, "T L 3 D"]
    """Derivative for the frame's own D parameters."""
    by_shape: Float[Tensor, "T L 3 S"]


@dataclass(frozen=True)
class _Posed:
    positions: Float[Tensor, "T L 3"]
    moved: Float[Tensor, "T L J 3"]
    """Each joint's part of a blended position, without the translation."""
    shares: Float[Tensor, "L J"]
    axis_angles: Float[Tensor, "T J 3"]
    local: Float[Tensor, "T J 3 3"]
    world_R: Float[Tensor, "T J 3 3"]
    world_joints: Float[Tensor, "T J 3"]

    def linear(
        self,
        points: SurfacePoints,
        directions: Float[Tensor, "L 3 3 K"],
        joint_directions: Float[Tensor, "J 3 K"],
    ) -> Float[Tensor, "T L 3 K"]:
        """Derivative for coefficients that displace the rest vertices, and the joints with them."""
        weighted = torch.einsum("lk,lkj->lkj", points.barycentric, points.weights)
        by_joint = torch.einsum("lkj,lkce->ljce", weighted, directions)
        of_points = torch.einsum("tjrc,ljce->tlre", self.world_R, by_joint)
        places = [joint_directions[0].expand(len(self.world_R), -1, -1)]
        for j in range(1, NUM_JOINTS):
            p = points.parents[j]
            places.append(self.world_R[:, p] @ (joint_directions[j] - joint_directions[p]) + places[p])
        offsets = torch.stack(places, dim=1) - self.world_R @ joint_directions
        return of_points + torch.einsum("lj,tjre->tlre", self.shares, offsets)

    def turned(self, points: SurfacePoints, joint: int) -> Float[Tensor, "T L 3 3"]:
        """Derivative for one joint's axis-angle."""
        below = [j for j in range(NUM_JOINTS) if _hangs_on(points.parents, j, joint)]
        share = self.shares[:, below].sum(1)
        lever = self.moved[:, :, below].sum(2) - share[None, :, None] * self.world_joints[:, None, joint]
        turn = left_jacobian(self.axis_angles[:, joint])
        parent = points.parents[joint]
        in_world = turn if joint == 0 else self.world_R[:, parent] @ turn
        # d(omega x lever) = -[lever]x d(omega)
        result = -torch.einsum("tlrc,tcd->tlrd", cross_matrix(lever), in_world)
        if points.posedirs is None or joint == 0:
            return result
        # The pose's corrective offsets follow the joint's rotation matrix: dR = [J da]x R.
        by_angle = torch.stack([cross_matrix(turn[..., i]) @ self.local[:, joint] for i in range(3)], dim=-1)
        rows = points.posedirs[..., 9 * (joint - 1) : 9 * joint]
        weighted = torch.einsum("lk,lkj->lkj", points.barycentric, points.weights)
        offsets = torch.einsum("lkcp,tpi->tlkci", rows, by_angle.flatten(1, 2))
        return result + torch.einsum("lkj,tjrc,tlkci->tlri", weighted, self.world_R, offsets)


def _hangs_on(parents: tuple[int, ...], joint: int, ancestor: int) -> bool:
    while joint > ancestor:
        joint = parents[joint]
    return joint == ancestor


def cross_matrix(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """[v]x, the matrix of the cross product: [v]x w = v x w."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def left_jacobian(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Left Jacobian of SO(3): exp(a + da) = exp(J(a) da) exp(a) to first order (Sola et al., 2018, equation 145)."""
    squared = (axis_angle * axis_angle).sum(-1)[..., None, None]
    small = squared < 1e-8
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    b = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    c = torch.where(small, 1 / 6 - squared / 120, (angle - angle.sin()) / (safe * angle))
    cross = cross_matrix(axis_angle)
    return torch.eye(3, dtype=axis_angle.dtype) + b * cross + c * (cross @ cross)
