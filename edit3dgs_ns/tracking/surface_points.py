"""Positions of a few points on a posed head, and their derivatives, without posing the whole head.

A tracked point lies in a triangle. Blending is linear, so the rest positions of its corners fold into one rest position for each
joint, weighted by the joint's share; nothing else of the head is posed. The model is that of `flame.model`, linear blend skinning
of template, shape and expression (Li et al., FLAME, 2017, equations 1 to 4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.rotations import axis_angle_to_matrix

NUM_JOINTS = 5
HEAD_JOINT, JAW_JOINT = 1, 2
ROTATION, TRANSLATION, NECK, JAW, EYES = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12), slice(12, 18)
NUM_POSE = 18
"""Columns of a row of frame parameters: rotation, translation, neck, jaw, left and right eye, then the expression."""


@dataclass(frozen=True)
class SurfacePoints:
    """L points of a head model, whose motion A of the joints share."""

    active: tuple[int, ...]
    """The joints that move any of the points."""
    shares: Float[Tensor, "L A"]
    template: Float[Tensor, "L A 3"]
    """Rest position times share, metres; the sum over a point's corners, as in the following."""
    shapedirs: Float[Tensor, "L A 3 S"]
    exprdirs: Float[Tensor, "L A 3 E"]
    posedirs: Float[Tensor, "L A 3 P"] | None
    joints: Float[Tensor, "J 3"]
    joint_shapedirs: Float[Tensor, "J 3 S"]
    joint_exprdirs: Float[Tensor, "J 3 E"]
    parents: tuple[int, ...]

    @classmethod
    def of(
        cls,
        model: FlameModel,
        faces: Int[Tensor, " L"],
        barycentric: Float[Tensor, "L 3"],
        dtype: torch.dtype = torch.float64,
    ) -> SurfacePoints:
        """The points `barycentric` of `faces` on `model`."""
        corners = model.faces[faces]
        regressor = model.J_regressor.double()
        weights = barycentric.double()[:, :, None] * model.weights[corners].double()
        active = torch.nonzero(weights.sum((0, 1))).flatten()
        weights = weights[:, :, active]

        def shared(values: Tensor) -> Tensor:
            return torch.einsum("lka,lk...->la...", weights, values[corners].double()).to(dtype)

        return cls(
            active=tuple(int(joint) for joint in active),
            shares=weights.sum(1).to(dtype),
            template=shared(model.v_template),
            shapedirs=shared(model.shapedirs),
            exprdirs=shared(model.exprdirs),
            posedirs=shared(model.posedirs) if model.has_posedirs else None,
            joints=(regressor @ model.v_template.double()).to(dtype),
            joint_shapedirs=torch.einsum("jv,vcs->jcs", regressor, model.shapedirs.double()).to(dtype),
            joint_exprdirs=torch.einsum("jv,vce->jce", regressor, model.exprdirs.double()).to(dtype),
            parents=model.parents,
        )

    def displaced(
        self,
        by_shape: Float[Tensor, "L 3 S"],
        by_expr: Float[Tensor, "L 3 E"],
        by_jaw: Float[Tensor, "L 3"],
    ) -> SurfacePoints:
        """The points, moved off the surface in the head's frame by something that is linear in the face.

        Args:
            by_shape, by_expr: displacement for each coefficient, metres.
            by_jaw: displacement for the sine of the jaw's opening.
        """
        at = self.active.index(HEAD_JOINT)
        shapedirs, exprdirs = self.shapedirs.clone(), self.exprdirs.clone()
        shapedirs[:, at] += by_shape
        exprdirs[:, at] += by_expr
        if self.posedirs is None:
            posedirs = self.template.new_zeros(*self.template.shape, 9 * (NUM_JOINTS - 1))
        else:
            posedirs = self.posedirs.clone()
        # The sine is the rotation matrix's entry in the third row and second column.
        posedirs[:, at, :, 9 * (JAW_JOINT - 1) + 7] += by_jaw
        return replace(self, shapedirs=shapedirs, exprdirs=exprdirs, posedirs=posedirs)

    def positions(self, shape: Float[Tensor, " S"], frames: Float[Tensor, "T D"]) -> Float[Tensor, "T L 3"]:
        """World positions of every point in T frames (metres)."""
        return self.posed(shape, frames).positions

    def posed(self, shape: Float[Tensor, " S"], frames: Float[Tensor, "T D"]) -> PosedPoints:
        """The points in T frames, ready to be differentiated.

        Args:
            shape: shape coefficients, all of the model's.
            frames: rows of `NUM_POSE` pose values and all expression coefficients.
        """
        expr = frames[:, NUM_POSE:]
        rest = self.template + self.shapedirs @ shape + torch.einsum("lace,te->tlac", self.exprdirs, expr)
        joints = self.joints + self.joint_shapedirs @ shape
        joints = joints + torch.einsum("jce,te->tjc", self.joint_exprdirs, expr)
        order = torch.cat([frames[:, ROTATION], frames[:, NECK], frames[:, JAW], frames[:, EYES]], dim=1)
        axis_angles = order.unflatten(1, (NUM_JOINTS, 3))
        local = axis_angle_to_matrix(axis_angles)
        if self.posedirs is not None:
            feature = (local[:, 1:] - torch.eye(3, dtype=frames.dtype)).flatten(1)
            rest = rest + torch.einsum("lacp,tp->tlac", self.posedirs, feature)
        R, places = [local[:, 0]], [joints[:, 0]]
        for j in range(1, NUM_JOINTS):
            p = self.parents[j]
            places.append((R[p] @ (joints[:, j] - joints[:, p])[..., None])[..., 0] + places[p])
            R.append(R[p] @ local[:, j])
        world_R, world_joints = torch.stack(R, dim=1), torch.stack(places, dim=1)
        offsets = world_joints - torch.einsum("tjrc,tjc->tjr", world_R, joints)
        active = list(self.active)
        # What each joint's motion makes of a point alone, before blending: the derivatives need them apart.
        moved = torch.einsum("tarc,tlac->tlar", world_R[:, active], rest)
        moved = moved + self.shares[None, :, :, None] * offsets[:, None, active]
        positions = moved.sum(2) + frames[:, None, TRANSLATION]
        return PosedPoints(self, positions, moved, axis_angles, local, world_R, world_joints)


@dataclass(frozen=True)
class PosedPoints:
    """L points in T frames."""

    points: SurfacePoints
    positions: Float[Tensor, "T L 3"]
    moved: Float[Tensor, "T L A 3"]
    """Each joint's part of a blended position, without the translation."""
    axis_angles: Float[Tensor, "T J 3"]
    local: Float[Tensor, "T J 3 3"]
    world_R: Float[Tensor, "T J 3 3"]
    world_joints: Float[Tensor, "T J 3"]

    def derivatives(
        self, rows: Float[Tensor, "T L R 3"]
    ) -> tuple[Float[Tensor, "T L R D"], Float[Tensor, "T L R S"]]:
        """Derivatives of measurements of the points, for the frames' parameters and for the shape.

        Args:
            rows: derivative of R measurements of each point for its position, such as its two pixel coordinates. The chain rule
                is applied from their side (reverse mode): one row of an image's gradient costs a third of a position.
        """
        by_angle = [self._by_angle(joint, rows) for joint in range(NUM_JOINTS)]
        by_expr = self._by_directions(rows, self.points.exprdirs, self.points.joint_exprdirs)
        return torch.cat([by_angle[0], rows, *by_angle[1:], by_expr], dim=-1), self.by_shape(rows)

    def by_shape(self, rows: Float[Tensor, "T L R 3"]) -> Float[Tensor, "T L R S"]:
        """The second of the `derivatives`."""
        return self._by_directions(rows, self.points.shapedirs, self.points.joint_shapedirs)

    def _at_rest(self, rows: Tensor) -> Float[Tensor, "T L R A 3"]:
        """The rows, turned back by each joint's rotation."""
        return torch.einsum("tadc,tlrd->tlrac", self.world_R[:, list(self.points.active)], rows)

    def _by_directions(
        self,
        rows: Float[Tensor, "T L R 3"],
        directions: Float[Tensor, "L A 3 K"],
        joint_directions: Float[Tensor, "J 3 K"],
    ) -> Float[Tensor, "T L R K"]:
        """Derivative for coefficients that displace the rest positions, and the joints with them."""
        of_points = torch.einsum("tlrac,lack->tlrk", self._at_rest(rows), directions)
        places = [joint_directions[0].expand(len(self.world_R), -1, -1)]
        for j in range(1, NUM_JOINTS):
            p = self.points.parents[j]
            places.append(self.world_R[:, p] @ (joint_directions[j] - joint_directions[p]) + places[p])
        offsets = (torch.stack(places, dim=1) - self.world_R @ joint_directions)[:, list(self.points.active)]
        shared = torch.einsum("la,tlrc->tlrac", self.points.shares, rows)
        return of_points + torch.einsum("tlrac,tack->tlrk", shared, offsets)

    def _by_angle(self, joint: int, rows: Float[Tensor, "T L R 3"]) -> Float[Tensor, "T L R 3"]:
        """Derivative for one joint's axis-angle."""
        points = self.points
        below = [a for a, j in enumerate(points.active) if _hangs_on(points.parents, j, joint)]
        share = points.shares[:, below].sum(1)
        lever = self.moved[:, :, below].sum(2) - share[None, :, None] * self.world_joints[:, None, joint]
        turn = left_jacobian(self.axis_angles[:, joint])
        in_world = turn if joint == 0 else self.world_R[:, points.parents[joint]] @ turn
        # row . (d(omega) x lever) = (lever x row) . d(omega)
        across = torch.linalg.cross(lever[:, :, None].expand_as(rows), rows)
        result = torch.einsum("tlrc,tcd->tlrd", across, in_world)
        if points.posedirs is None or joint == 0:
            return result
        # The pose's corrective offsets follow the joint's rotation matrix: dR = [J da]x R.
        by_angle = torch.stack([cross_matrix(turn[..., i]) @ self.local[:, joint] for i in range(3)], dim=-1)
        directions = points.posedirs[..., 9 * (joint - 1) : 9 * joint]
        by_matrix = torch.einsum("tlrac,lacp->tlrp", self._at_rest(rows), directions)
        return result + torch.einsum("tlrp,tpi->tlri", by_matrix, by_angle.flatten(1, 2))


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
