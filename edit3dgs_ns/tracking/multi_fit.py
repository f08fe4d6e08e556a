"""Fits a head to landmarks in several synchronised cameras whose places and intrinsics are known.

The unknowns are those of `fit` without the focal length: one shape, and a pose and expression for every timestep, in the world of
the cameras (metres). All cameras of a timestep stand in one system; one that sees no face adds nothing.

Conventions: camera-to-world matrices with OpenGL axes (x right, y up, looking along -z); pixels y down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.tracking.banded import SequenceSystem
from edit3dgs_ns.tracking.fit import (
    CHUNK,
    INDEPENDENT_FRAMES,
    INDEPENDENT_SHARE,
    ROBUST_SCALE,
    ROUNDS,
    HeadFit,
    TrackingState,
)
from edit3dgs_ns.tracking.landmark_table import LandmarkTable
from edit3dgs_ns.tracking.priors import FitPriors
from edit3dgs_ns.tracking.surface_points import NECK, NUM_POSE, ROTATION, PosedPoints
from edit3dgs_ns.tracking.template_registration import vertex_normals

FEWEST_TIMESTEPS = 3
"""With a face in some camera."""
NEAREST = 0.05
"""Metres before a camera where points still project."""


@dataclass(frozen=True)
class CameraView:
    """Landmarks in the images of one camera, one a timestep."""

    camera: Camera
    pixels: Float[Tensor, "T L 2"]
    """Any numbers where none was found."""
    found: Bool[Tensor, " T"]

    def in_camera(self, positions: Float[Tensor, "T L 3"]) -> Float[Tensor, "T L 3"]:
        """World -> camera."""
        c2w = torch.from_numpy(self.camera.c2w)
        return (positions - c2w[:3, 3]) @ c2w[:3, :3]

    def project(
        self, positions: Float[Tensor, "T L 3"]
    ) -> tuple[Float[Tensor, "T L 2"], Float[Tensor, "T L 2 3"]]:
        """Pixels of world positions, and their derivatives."""
        K, R = torch.from_numpy(self.camera.K), torch.from_numpy(self.camera.c2w[:3, :3])
        x, y, z = self.in_camera(positions).unbind(-1)
        depth = (-z).clamp(min=NEAREST)
        pixels = torch.stack([K[0, 2] + K[0, 0] * x / depth, K[1, 2] - K[1, 1] * y / depth], dim=-1)
        zero = torch.zeros_like(x)
        rows = [
            torch.stack([K[0, 0] / depth, zero, K[0, 0] * x / depth**2], dim=-1),
            torch.stack([zero, -K[1, 1] / depth, -K[1, 1] * y / depth**2], dim=-1),
        ]
        return pixels, torch.stack(rows, dim=-2) @ R.T


@dataclass(frozen=True)
class MultiFit:
    """A head model and its landmarks, ready to be fitted to several cameras."""

    head: HeadFit
    normals: Float[Tensor, "L 3"]
    """Of the template's surface at the landmarks."""

    @classmethod
    def of(cls, assets: FlameAssets, table: LandmarkTable, priors: FitPriors) -> MultiFit:
        """Prepare the points of the table on a head model."""
        corners = assets.faces[table.faces]
        of_vertices = vertex_normals(assets.v_template.astype(np.float64), assets.faces)
        normals = torch.from_numpy(np.einsum("lk,lkc->lc", table.barycentric, of_vertices[corners]))
        return cls(
            HeadFit.of(assets, table, priors), normals / normals.norm(dim=1, keepdim=True).clamp(min=1e-9)
        )

    def fit(self, views: Sequence[CameraView], elapsed: Float[Tensor, " T-1"] | None = None) -> TrackingState:
        """Fit all timesteps together.

        Args:
            views: of each camera.
            elapsed: timesteps from each to the next; None: they are consecutive.

        Returns:
            The state; its focal length means nothing. Timesteps without a face are filled by the priors; they are not to be used.
        """
        state = self.start(views)
        spreads = [self._spread(view, state) for view in views]
        for number, steps in enumerate(ROUNDS):
            slid = [self.slid(view, state) if number else torch.zeros_like(view.pixels) for view in views]
            corrected = [replace(view, pixels=view.pixels - s) for view, s in zip(views, slid, strict=True)]
            for _ in range(steps):
                system, cost = self._normal_equations(corrected, spreads, state, elapsed)
                state.costs.append(cost)
                step, shared = system.solve(damping=1e-4)
                state.frames += torch.from_numpy(step)
                state.shape += torch.from_numpy(shared)
        return state

    def start(self, views: Sequence[CameraView]) -> TrackingState:
        """The template's pose at each timestep: of those that single cameras suggest, the one that all cameras like best."""
        count = len(views[0].found)
        frames = torch.zeros(count, NUM_POSE + self.head.points.exprdirs.shape[-1]).double()
        known = np.flatnonzero(torch.stack([view.found for view in views]).any(0).numpy())
        for t in known:
            seeing = [view for view in views if view.found[t]]
            poses = torch.stack([self._pose(view, t) for view in seeing])
            missed = sum(self._missed(view, poses, t) for view in seeing)
            assert isinstance(missed, Tensor)
            frames[t, : poses.shape[1]] = poses[int(missed.argmin())]
        nearest = known[np.abs(known[None] - np.arange(count)[:, None]).argmin(1)]
        return TrackingState(frames[nearest], self.head.priors.shape_mean.clone(), 1.0)

    def reprojection(self, view: CameraView, state: TrackingState) -> Float[Tensor, "T L"]:
        """Distance of each landmark from the fitted head's in one camera, pixels."""
        predicted, _ = view.project(self.head.points.positions(state.shape, state.frames))
        return (predicted + self.slid(view, state) - view.pixels).norm(dim=-1)

    def face_pixels(self, view: CameraView, state: TrackingState) -> Float[Tensor, "T L 2"]:
        """Where the fitted head's landmarks are in the images of a camera."""
        return view.project(self.head.points.positions(state.shape, state.frames))[0]

    def shows_face(self, view: CameraView, state: TrackingState, degrees: float) -> Bool[Tensor, " T"]:
        """Timesteps at which the fitted face is in the image as a whole, and turned to the camera within an angle."""
        positions = self.head.points.positions(state.shape, state.frames)
        pixels, _ = view.project(positions)
        size = torch.tensor([view.camera.width, view.camera.height])
        inside = ((pixels >= 0) & (pixels <= size)).all(-1).all(-1)
        towards = torch.from_numpy(view.camera.c2w[:3, 3]) - positions.mean(1)
        cosine = (head_rotation(state)[:, :, 2] * towards).sum(1) / towards.norm(dim=1)
        return (
            inside
            & (view.in_camera(positions)[..., 2] < 0).all(-1)
            & (cosine > math.cos(math.radians(degrees)))
        )

    def slid(self, view: CameraView, state: TrackingState) -> Float[Tensor, "T L 2"]:
        """Pixels that the landmarks are displaced by, seen from a camera (see `landmark_table`)."""
        positions = self.head.points.positions(state.shape, state.frames)
        head_R = head_rotation(state)
        towards = torch.from_numpy(view.camera.c2w[:3, 3]) - positions.mean(1)
        towards = torch.einsum("tji,tj->ti", head_R, towards / towards.norm(dim=1, keepdim=True))
        offsets = torch.from_numpy(self.head.table.displacements(towards.numpy()))
        _, rows = view.project(positions)
        return torch.einsum("tlrc,tcd,tld->tlr", rows, head_R, offsets)

    def _pose(self, view: CameraView, t: int) -> Float[Tensor, " 6"]:
        """Rotation and translation of the template that one camera suggests (perspective-n-point)."""
        pixels = np.ascontiguousarray(view.pixels[t].numpy())
        neutral = np.ascontiguousarray(self.head.neutral)
        _, turn, place = cv2.solvePnP(neutral, pixels, view.camera.K, np.zeros(0), flags=cv2.SOLVEPNP_SQPNP)
        flip = np.diag([1.0, -1.0, -1.0])  # OpenCV looks along +z with y down
        to_world = view.camera.c2w[:3, :3] @ flip
        R = to_world @ cv2.Rodrigues(turn)[0]
        joint = self.head.points.joints[0].numpy()
        # The model turns about its root joint: R (x - joint) + joint + translation.
        moved = to_world @ place[:, 0] + view.camera.c2w[:3, 3] + R @ joint - joint
        return torch.from_numpy(np.concatenate([Rotation.from_matrix(R).as_rotvec(), moved]))

    def _missed(self, view: CameraView, poses: Float[Tensor, "n 6"], t: int) -> Float[Tensor, " n"]:
        """Mean distance of the template's landmarks in some poses from those of a camera: pixels, at most a tenth of the image."""
        rows = torch.zeros(len(poses), NUM_POSE + self.head.points.exprdirs.shape[-1]).double()
        rows[:, : poses.shape[1]] = poses
        pixels, _ = view.project(self.head.points.positions(self.head.priors.shape_mean, rows))
        return (pixels - view.pixels[t]).norm(dim=-1).mean(1).clamp(max=0.1 * view.camera.width)

    def _spread(self, view: CameraView, state: TrackingState) -> Float[Tensor, "T L"]:
        """Spread of the landmarks in pixels, at the start's distance; larger where the surface turns away and is guessed."""
        positions = self.head.points.positions(state.shape, state.frames)
        depth = -view.in_camera(positions)[..., 2].mean(1)
        towards = torch.from_numpy(view.camera.c2w[:3, 3]) - positions
        towards = towards / towards.norm(dim=-1, keepdim=True)
        facing = torch.einsum("tij,lj,tli->tl", head_rotation(state), self.normals, towards)
        away = ((facing + 0.1) / 0.5).clamp(0.15, 1)
        return (
            torch.from_numpy(self.head.table.spread)[None]
            * (view.camera.K[0, 0] / depth.clamp(min=NEAREST))[:, None]
            / away
        )

    def _normal_equations(
        self,
        views: Sequence[CameraView],
        spreads: Sequence[Tensor],
        state: TrackingState,
        elapsed: Float[Tensor, " T-1"] | None,
    ) -> tuple[SequenceSystem, float]:
        """The step's linear system, and the sum of squares before it."""
        frames, shape, priors = state.frames, state.shape, self.head.priors
        system = SequenceSystem.zeros(len(frames), frames.shape[1], len(shape))
        cost = 0.0
        for rows in torch.arange(len(frames)).split(CHUNK):
            posed, at = self.head.points.posed(shape, frames[rows]), rows.numpy()
            for view, spread in zip(views, spreads, strict=True):
                part = replace(view, pixels=view.pixels[rows], found=view.found[rows])
                if not part.found.any():
                    continue
                residual, by_frame, by_shape = _weighted_residuals(posed, part, spread[rows])
                cost += float((residual**2).sum())
                system.blocks[at] += torch.einsum("tnd,tne->tde", by_frame, by_frame).numpy()
                system.border[at] += torch.einsum("tnd,tnq->tdq", by_frame, by_shape).numpy()
                system.right_frames[at] -= torch.einsum("tnd,tn->td", by_frame, residual).numpy()
                flat = by_shape.flatten(0, 1)
                system.shared += (flat.T @ flat).numpy()
                system.right_shared -= (flat.T @ residual.flatten()).numpy()
        hessian, gradient, value = priors.of_frames(frames)
        system.blocks += hessian.numpy()
        system.right_frames -= gradient.numpy()
        cost += value + system.add_smoothness(priors.stiffness(elapsed), frames.numpy())
        # A detector errs alike at all timesteps, but not in all cameras.
        weight = priors.shape_std.numpy() ** -2.0 * max(1.0, len(frames) / INDEPENDENT_FRAMES)
        error = (shape - priors.shape_mean).numpy()
        system.shared[np.diag_indices_from(system.shared)] += weight
        system.right_shared -= weight * error
        return system, cost + float((weight * error**2).sum())


def head_rotation(state: TrackingState) -> Float[Tensor, "T 3 3"]:
    """World from head: the root's rotation and the neck's."""
    turn = Rotation.from_rotvec(state.frames[:, ROTATION].numpy()) * Rotation.from_rotvec(
        state.frames[:, NECK].numpy()
    )
    return torch.from_numpy(turn.as_matrix())


def _weighted_residuals(
    posed: PosedPoints, view: CameraView, spread: Float[Tensor, "T L"]
) -> tuple[Float[Tensor, "T N"], Float[Tensor, "T N D"], Float[Tensor, "T N S"]]:
    """Errors in spreads, times the square roots of their robust weights; and their derivatives for frames and shape."""
    predicted, rows = view.project(posed.positions)
    error = predicted - view.pixels
    squared = ((error / spread[..., None]) ** 2).sum(-1)
    weight = (INDEPENDENT_SHARE / (1 + squared / ROBUST_SCALE**2)).sqrt() / spread * view.found[:, None]
    by_frame, by_shape = (
        values.flatten(1, 2) for values in posed.derivatives(rows * weight[..., None, None])
    )
    return (error * weight[..., None]).flatten(1), by_frame, by_shape
