"""Fits a head model to a video: one shape and focal length, and a pose and expression for every frame.

First to the landmarks, then to the images beside them (`photometric`), at last to the outline of the hair, too (`outline`).

All unknowns are solved together by Gauss-Newton with robust weights: the frames are a chain whose neighbours are coupled by
smoothness, the shape and the focal length are shared (`banded.SequenceSystem`).

Conventions: the camera stands at the origin and looks along -z, x right, y up (OpenGL); image coordinates in pixels, y down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.tracking.banded import ChunkTerms, SequenceSystem
from edit3dgs_ns.tracking.landmark_table import LandmarkTable
from edit3dgs_ns.tracking.outline import OutlineTerm
from edit3dgs_ns.tracking.parallel import in_threads, one_thread_an_operation
from edit3dgs_ns.tracking.photometric import FaceImages, FaceSamples, PhotometricTerm
from edit3dgs_ns.tracking.priors import FitPriors
from edit3dgs_ns.tracking.surface_points import (
    NECK,
    NUM_POSE,
    ROTATION,
    TRANSLATION,
    PosedPoints,
    SurfacePoints,
)

ROBUST_SCALE = 2.5
"""Cauchy's scale, in spreads of a landmark: residuals beyond it count less and less."""
INDEPENDENT_SHARE = 0.15
"""The landmarks of one frame err together: this share of them counts as independent measurements."""
INDEPENDENT_FRAMES = 3.0
"""A detector errs alike in all frames of a person: for shape and focal length they count as this many."""
ROUNDS = (4, 2, 2)
"""Gauss-Newton steps between two corrections of what the landmarks slide with the view."""
PHOTOMETRIC_ROUNDS = (3, 2)
"""The same, with the images beside the landmarks."""
PHOTOMETRIC_FRAMES = 40.0
"""`INDEPENDENT_FRAMES`, with the images: how a face's texture moves as the head turns does tell its shape."""
OUTLINE_STEPS = 2
"""And with the outline of the head beside both."""
CHUNK = 16
"""Frames whose derivatives a thread computes at once."""
LEAST_FACES = 10
"""Frames with a face that a fit needs."""


@dataclass(frozen=True)
class Observations:
    """Landmarks found in the frames of a video, on the image that is fitted."""

    pixels: Float[Tensor, "T L 2"]
    """Any numbers where none was found."""
    found: Bool[Tensor, " T"]
    center: Float[Tensor, " 2"]
    """Principal point, pixels."""
    elapsed: Float[Tensor, " T-1"] | None = None
    """Frames of the video from each to the next; None: they are consecutive."""


@dataclass
class TrackingState:
    """The unknowns of the fit."""

    frames: Float[Tensor, "T D"]
    """Rows of `surface_points`: pose, then expression."""
    shape: Float[Tensor, " S"]
    focal: float
    """Pixels."""
    costs: list[float] = field(default_factory=list)
    """Sum of squares before each step."""


@dataclass(frozen=True)
class HeadFit:
    """A head model and its landmarks, ready to be fitted."""

    head: FlameAssets
    points: SurfacePoints
    table: LandmarkTable
    neutral: Float[np.ndarray, "L 3"]
    """The landmarks on the template, metres."""
    priors: FitPriors

    @classmethod
    def of(cls, head: FlameAssets, table: LandmarkTable, priors: FitPriors) -> HeadFit:
        """Prepare the points of the table on a head model."""
        faces, barycentric = torch.from_numpy(table.faces), torch.from_numpy(table.barycentric)
        points = SurfacePoints.of(FlameModel.from_assets(head), faces, barycentric)
        if table.modes.shape[2]:
            points = points.displaced(
                *map(torch.from_numpy, table.face_displacements(head.shapedirs.shape[2]))
            )
        neutral = np.einsum("lk,lkc->lc", table.barycentric, head.v_template[head.faces[table.faces]])
        return cls(head, points, table, neutral, priors)

    def fit(
        self,
        observed: Observations,
        images: FaceImages | None = None,
        outline: Callable[[TrackingState], OutlineTerm] | None = None,
    ) -> TrackingState:
        """Fit all frames together: to the landmarks, then to the images as well, and at last to the head's outline, too.

        Frames without a face are filled by the priors; they are not to be used.

        Args:
            observed: the landmarks.
            images: of the same frames; None fits the landmarks alone.
            outline: draws the outline of a head that is fitted so far; used with images only.

        Raises:
            UserError: fewer than `LEAST_FACES` frames show a face.
        """
        if int(observed.found.sum()) < LEAST_FACES:
            raise UserError(
                f"A face was found in {int(observed.found.sum())} of {len(observed.found)} frames; "
                f"at least {LEAST_FACES} are needed."
            )
        with one_thread_an_operation():
            return self._fit(observed, images, outline)

    def _fit(
        self,
        observed: Observations,
        images: FaceImages | None,
        outline: Callable[[TrackingState], OutlineTerm] | None,
    ) -> TrackingState:
        state = self.start(observed)
        priors = self.priors.at_distance(state.focal, float(self._depth(state).median()))
        if not priors.focal_known:
            state = self.start(observed, float(np.exp(priors.log_focal)))
        fit = replace(self, priors=priors)
        spread = self._spread_in_pixels(state)
        # The images' rounds correct once more.
        for number, steps in enumerate(ROUNDS if images is None else ROUNDS[:-1]):
            slid = self._slid(state) if number else 0.0
            corrected = replace(observed, pixels=observed.pixels - slid)
            state = fit._gauss_newton(corrected, spread, state, steps)
        if images is None:
            return state
        samples = FaceSamples.of(self.head, self.neutral)
        term = PhotometricTerm(images, samples, observed.center, observed.found)
        for steps in PHOTOMETRIC_ROUNDS:
            corrected = replace(observed, pixels=observed.pixels - self._slid(state))
            state = fit._gauss_newton(corrected, spread, state, steps, [term])
        if outline is not None:
            corrected = replace(observed, pixels=observed.pixels - self._slid(state))
            state = fit._gauss_newton(corrected, spread, state, OUTLINE_STEPS, [term, outline(state)])
        return state

    def start(self, observed: Observations, focal: float | None = None) -> TrackingState:
        """The template's pose in each frame (perspective-n-point), with a focal length; by default the priors'."""
        import cv2

        focal = focal or float(np.exp(self.priors.log_focal))
        center = observed.center.numpy()
        K = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]])
        joint = self.points.joints[0].numpy()
        frames = torch.zeros(len(observed.found), NUM_POSE + self.points.exprdirs.shape[-1]).double()
        flip = np.diag([1.0, -1.0, -1.0])  # OpenCV looks along +z with y down
        known = np.flatnonzero(observed.found.numpy())
        for t in known:
            pixels = np.ascontiguousarray(observed.pixels[t].numpy())
            _, turn, place = cv2.solvePnP(
                np.ascontiguousarray(self.neutral), pixels, K, np.zeros(0), flags=cv2.SOLVEPNP_SQPNP
            )
            R = flip @ cv2.Rodrigues(turn)[0]
            # The model turns about its root joint: R (x - joint) + joint + translation.
            frames[t, ROTATION] = torch.from_numpy(Rotation.from_matrix(R).as_rotvec())
            frames[t, TRANSLATION] = torch.from_numpy(flip @ place[:, 0] + R @ joint - joint)
        nearest = known[np.abs(known[None] - np.arange(len(frames))[:, None]).argmin(1)]
        return TrackingState(frames[nearest], self.priors.shape_mean.clone(), focal)

    def reprojection(self, observed: Observations, state: TrackingState) -> Float[Tensor, "T L"]:
        """Distance of each landmark from the fitted head's, pixels."""
        positions = self.points.positions(state.shape, state.frames)
        predicted = project_points(positions, state.focal, observed.center) + self._slid(state)
        return (predicted - observed.pixels).norm(dim=-1)

    def _spread_in_pixels(self, state: TrackingState) -> Float[Tensor, "T L"]:
        # At the start's distance, not at the current one: a head that shrinks must not look better by it.
        return torch.from_numpy(self.table.spread)[None] * (state.focal / self._depth(state))[:, None]

    def _depth(self, state: TrackingState) -> Float[Tensor, " T"]:
        """Distance of the face along the line of sight, about: metres."""
        depth = -(state.frames[:, TRANSLATION.stop - 1] + float(self.neutral[:, 2].mean()))
        return depth.clamp(min=0.05)

    def _slid(self, state: TrackingState) -> Float[Tensor, "T L 2"]:
        """Pixels that the landmarks are displaced by in the current views (see `landmark_table`)."""
        positions = self.points.positions(state.shape, state.frames)
        head_R = torch.from_numpy(
            (
                Rotation.from_rotvec(state.frames[:, ROTATION].numpy())
                * Rotation.from_rotvec(state.frames[:, NECK].numpy())
            ).as_matrix()
        )
        towards = torch.einsum("tji,tj->ti", head_R, -positions.mean(1))
        towards = towards / towards.norm(dim=1, keepdim=True)
        offsets = torch.from_numpy(self.table.displacements(towards.numpy()))
        in_camera = torch.einsum("tij,tlj->tli", head_R, offsets) * (state.focal / -positions[..., 2:])
        return in_camera[..., :2] * torch.tensor([1.0, -1.0]).double()

    def _gauss_newton(
        self,
        observed: Observations,
        spread: Tensor,
        state: TrackingState,
        steps: int,
        terms: Sequence[PhotometricTerm | OutlineTerm] = (),
    ) -> TrackingState:
        frames, shape, log_focal = state.frames.clone(), state.shape.clone(), float(np.log(state.focal))
        costs = list(state.costs)
        for _ in range(steps):
            independent = PHOTOMETRIC_FRAMES if terms else INDEPENDENT_FRAMES
            system, cost = self._normal_equations(observed, spread, frames, shape, log_focal, independent)
            cost += sum(term.add_to(system, frames, shape, log_focal) for term in terms)
            costs.append(cost)
            step, shared = system.solve(damping=1e-4)
            frames += torch.from_numpy(step)
            shape += torch.from_numpy(shared[:-1])
            log_focal += float(np.clip(shared[-1], -0.2, 0.2))
        return TrackingState(frames, shape, float(np.exp(log_focal)), costs)

    def _normal_equations(
        self,
        observed: Observations,
        spread: Tensor,
        frames: Tensor,
        shape: Tensor,
        log_focal: float,
        independent_frames: float,
    ) -> tuple[SequenceSystem, float]:
        """The step's linear system, and the sum of squares before it."""
        system = SequenceSystem.zeros(len(frames), frames.shape[1], len(shape) + 1)
        cost = 0.0

        def terms(rows: Tensor) -> ChunkTerms:
            part = replace(observed, pixels=observed.pixels[rows], found=observed.found[rows])
            posed = self.points.posed(shape, frames[rows])
            return ChunkTerms.of(rows, *_weighted_residuals(posed, part, spread[rows], log_focal))

        for chunk in in_threads(terms, torch.arange(len(frames)).split(CHUNK)):
            cost += chunk.add_to(system)
        hessian, gradient, value = self.priors.of_frames(frames)
        system.blocks += hessian.numpy()
        system.right_frames -= gradient.numpy()
        cost += value + system.add_smoothness(self.priors.stiffness(observed.elapsed), frames.numpy())
        weight, error = self.priors.of_shared(shape, log_focal)
        weight = weight * max(1.0, len(frames) / independent_frames)
        system.shared[np.diag_indices_from(system.shared)] += weight
        system.right_shared -= weight * error
        return system, cost + float((weight * error**2).sum())


def project_points(
    positions: Float[Tensor, "T L 3"], focal: float, center: Float[Tensor, " 2"]
) -> Float[Tensor, "T L 2"]:
    """Pixels of points in camera space."""
    in_plane = torch.stack([positions[..., 0], -positions[..., 1]], dim=-1)
    return center + focal * in_plane / -positions[..., 2:]


def _weighted_residuals(
    points: PosedPoints, observed: Observations, spread: Tensor, log_focal: float
) -> tuple[Float[Tensor, "T N"], Float[Tensor, "T N D"], Float[Tensor, "T N Q"]]:
    """Errors in spreads, times the square roots of their robust weights; and their derivatives for frame and shared unknowns."""
    focal = float(np.exp(log_focal))
    x, y, z = points.positions.unbind(-1)
    depth = (-z).clamp(min=0.05)
    projected = project_points(points.positions, focal, observed.center)
    error = projected - observed.pixels
    squared = ((error / spread[..., None]) ** 2).sum(-1)
    robust = INDEPENDENT_SHARE / (1 + squared / ROBUST_SCALE**2)
    weight = robust.sqrt() / spread * observed.found[:, None]
    zero = torch.zeros_like(x)
    by_position = (
        torch.stack(
            [
                torch.stack([focal / depth, zero, focal * x / depth**2], dim=-1),
                torch.stack([zero, -focal / depth, -focal * y / depth**2], dim=-1),
            ],
            dim=-2,
        )
        * weight[..., None, None]
    )
    by_focal = ((projected - observed.center) * weight[..., None]).flatten(1)
    by_frame, by_shape = (values.flatten(1, 2) for values in points.derivatives(by_position))
    residual = (error * weight[..., None]).flatten(1)
    return residual, by_frame, torch.cat([by_shape, by_focal[..., None]], dim=-1)
