"""Photometric alignment: a surface point of the face looks alike in all frames, which ties the frames to each other.

Landmarks are found in each frame alone: they jitter from frame to frame, and lean towards the detector's mean face. The skin's own
texture does not. As in Lucas-Kanade alignment (Baker and Matthews, 2004) the images' gradients give each error a derivative
for the unknowns, so that it enters the same normal equations as the landmarks:

    r[t, s] = I_t(project(x_s(frame t, shape), focal)) - A_s

I is the image's local contrast, which the light hardly changes (`local_contrast`), and A_s the robust mean of sample s over the
frames that see it. A_s is eliminated as in variable projection (Golub and Pereyra, 1973): what shape and focal length change alike
in all frames is no error, only parallax is, so the mean over the frames is taken from their derivatives.

Outlines are no texture: where the surface turns away, the edge to the background passes over it. Samples seen at a slant are left
out, and contrast is taken in a small window (with samples up to 70 degrees and twice the window, heads of known shape were found to
turn a third further than they do).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.tracking.banded import SequenceSystem
from edit3dgs_ns.tracking.surface_points import SurfacePoints

EYE_DISTANCE = 64.0
"""Pixels between the outer eye corners at which images are compared: a pixel is 1.4 mm."""
PATCH = 192
"""Pixels of the square around each frame's face."""
FINE, COARSE = 1.2, 4.0
"""Standard deviations of the blurs between which contrast is looked at, pixels."""
NOISE = 6.0
"""Grey levels of contrast that count as none."""
SAMPLES = 1200
NEAR = 0.012
"""Metres: samples lie this near to one of the detector's landmarks."""
LEAST_COSINE = 0.65
"""Between a sample's normal and the line of sight: less is not looked at."""
SPREAD = 0.3
"""Standard deviation of a sample's contrast in a frame."""
ROBUST = 1.0
"""Cauchy's scale: contrasts that are further off count less and less."""
MEAN_FRAMES = 48
"""Frames of which the derivatives' mean is taken."""
CHUNK = 32


def local_contrast(image: UInt8[np.ndarray, "h w 3"], shrink: float = 1.0) -> Float[np.ndarray, "h2 w2"]:
    """Grey levels less their surroundings' mean, over their surroundings' standard deviation; float32.

    Args:
        image: RGB.
        shrink: factor of the sides, at most 1.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if shrink < 1:
        size = (round(grey.shape[1] * shrink), round(grey.shape[0] * shrink))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    grey = grey.astype(np.float32)
    detail = cv2.GaussianBlur(grey, (0, 0), FINE) - cv2.GaussianBlur(grey, (0, 0), COARSE)
    power = cv2.GaussianBlur(detail**2, (0, 0), COARSE)
    return np.clip(detail / np.sqrt(power + NOISE**2), -3, 3)


@dataclass(frozen=True)
class FaceImages:
    """Local contrast around the face in T frames."""

    patches: Float[Tensor, "T P P"]
    """float16; NaN outside of the image."""
    corner: Int[Tensor, "T 2"]
    """Upper left of each patch, in pixels of the shrunk image."""
    shrink: float
    """Pixels of the shrunk image in a pixel of the fitted one."""

    @classmethod
    def of(
        cls,
        images: Iterable[UInt8[np.ndarray, "h w 3"]],
        landmarks: Float[np.ndarray, "T L 2"],
        eye_distance: float,
    ) -> FaceImages:
        """Cut the faces out.

        Args:
            images: T RGB images.
            landmarks: of each, in its pixels.
            eye_distance: between the outer corners, pixels.
        """
        shrink = min(1.0, EYE_DISTANCE / eye_distance)
        patches, corners = [], []
        for image, found in zip(images, landmarks, strict=True):
            contrast = local_contrast(image, shrink)
            size = np.array(contrast.shape[::-1])
            shrink = float(size[0] / image.shape[1])  # whole pixels
            corner = np.rint((found.min(0) + found.max(0)) / 2 * shrink - PATCH / 2).astype(int)
            patch = np.full((PATCH, PATCH), np.nan, np.float16)
            low, high = np.clip(corner, 0, size), np.clip(corner + PATCH, 0, size)
            (x0, y0), (x1, y1) = low - corner, high - corner
            patch[y0:y1, x0:x1] = contrast[low[1] : high[1], low[0] : high[0]]
            patches.append(patch)
            corners.append(corner)
        return cls(torch.from_numpy(np.stack(patches)), torch.from_numpy(np.stack(corners)), shrink)

    def sampled(self, rows: Int[Tensor, " R"], pixels: Float[Tensor, "R L 2"]) -> Float[Tensor, "R L 3"]:
        """Contrast at pixels of the fitted image, and its derivatives for x and y, in the frames `rows`; NaN outside."""
        patches = self.patches[rows].float()
        wider = pad(patches, (1, 1, 1, 1), mode="replicate")
        by_x = (wider[:, 1:-1, 2:] - wider[:, 1:-1, :-2]) / 2
        by_y = (wider[:, 2:, 1:-1] - wider[:, :-2, 1:-1]) / 2
        at = (pixels.float() * self.shrink - self.corner[rows, None].float()) * (2 / patches.shape[-1]) - 1
        stacked = torch.stack([patches, by_x * self.shrink, by_y * self.shrink], dim=1)
        found = grid_sample(stacked, at[:, :, None], align_corners=False)[..., 0].transpose(1, 2)
        return torch.where((at.abs() < 0.98).all(-1)[..., None], found, torch.nan)


@dataclass(frozen=True)
class FaceSamples:
    """Points spread over the skin of the face."""

    points: SurfacePoints
    """float32."""
    normals: Float[Tensor, "L 3"]
    """On the template."""

    @classmethod
    def of(cls, head: FlameAssets, neutral: Float[np.ndarray, "K 3"]) -> FaceSamples:
        """Samples near the landmarks' places on the template; none on eyeballs, or in the mouth."""
        from scipy.spatial import cKDTree

        model = FlameModel.from_assets(head)
        corners = head.v_template[head.faces].astype(np.float64)
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area = np.linalg.norm(cross, axis=1)
        normal = cross / np.maximum(area, 1e-12)[:, None]
        away, _ = cKDTree(neutral).query(corners.mean(1))
        eyeball = np.asarray(head.weights)[head.faces][..., 3:].max((1, 2)) > 0.1
        usable = (away < NEAR) & ~eyeball & (normal[:, 2] > 0.2)
        # The largest connected part: teeth and tongue are parts of their own.
        usable &= _largest_part(head.faces, usable)
        chance = np.where(usable, area, 0)
        rng = np.random.default_rng(0)
        # Evenly: one sample for each equal share of the area.
        where = (np.arange(SAMPLES) + rng.random(SAMPLES)) / SAMPLES
        chosen = np.searchsorted(np.cumsum(chance) / chance.sum(), where)
        a, b = np.sqrt(rng.random(SAMPLES)), rng.random(SAMPLES)
        barycentric = np.stack([1 - a, a * (1 - b), a * b], axis=1)
        points = SurfacePoints.of(
            model, torch.from_numpy(chosen), torch.from_numpy(barycentric), torch.float32
        )
        return cls(points, torch.from_numpy(normal[chosen]).float())


def _largest_part(faces: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Which of the triangles belong to the largest connected part of the usable ones."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    chosen = faces[usable]
    size = int(faces.max()) + 1
    links = coo_matrix(
        (np.ones(2 * len(chosen)), (chosen[:, [0, 1]].ravel(), chosen[:, [1, 2]].ravel())), (size, size)
    )
    label = connected_components(links, directed=False)[1]
    largest = np.bincount(label[chosen[:, 0]]).argmax()
    return label[faces[:, 0]] == largest


@dataclass(frozen=True)
class PhotometricTerm:
    """The errors of the samples in all frames, for the normal equations of `fit`."""

    images: FaceImages
    samples: FaceSamples
    center: Float[Tensor, " 2"]
    """Principal point, pixels of the fitted images."""
    found: Bool[Tensor, " T"]
    """Frames that show the face."""

    def add_to(
        self,
        system: SequenceSystem,
        frames: Float[Tensor, "T D"],
        shape: Float[Tensor, " S"],
        log_focal: float,
    ) -> float:
        """Add the samples' errors to the normal equations; returns their sum of squares now."""
        frames, shape = frames.float(), shape.float()
        chunks = torch.arange(len(frames)).split(CHUNK)
        looks = [self._look(rows, frames, shape, log_focal) for rows in chunks]
        value, seen = (torch.cat(parts) for parts in zip(*looks, strict=True))
        error = (value - robust_mean(value, seen)) / SPREAD
        weight = seen / (1 + (error * SPREAD / ROBUST) ** 2)
        some = torch.arange(0, len(frames), max(1, len(frames) // MEAN_FRAMES))
        _, by_shared = self._derivatives(some, frames, shape, log_focal)
        share = weight[some] / weight[some].sum(0).clamp(min=1e-6)
        in_common = torch.einsum("tl,tlq->lq", share, by_shared)
        for rows in chunks:
            by_frame, by_shared = self._derivatives(rows, frames, shape, log_focal)
            root = weight[rows].sqrt()[..., None]
            by_frame, by_shared = by_frame * root, (by_shared - in_common) * root
            residual, at = error[rows] * root[..., 0], rows.numpy()
            system.blocks[at] += (by_frame.transpose(1, 2) @ by_frame).numpy()
            system.border[at] += (by_frame.transpose(1, 2) @ by_shared).numpy()
            system.right_frames[at] -= torch.einsum("tnd,tn->td", by_frame, residual).numpy()
            flat = by_shared.flatten(0, 1)
            system.shared += (flat.T @ flat).numpy()
            system.right_shared -= (flat.T @ residual.flatten()).numpy()
        return float((weight * error**2).sum())

    def _look(self, rows: Tensor, frames: Tensor, shape: Tensor, log_focal: float) -> tuple[Tensor, Tensor]:
        """Contrast of each sample in a few frames, and how well each is seen."""
        posed = self.samples.points.posed(shape, frames[rows])
        found = self.images.sampled(rows, self._pixels(posed.positions, log_focal))[..., 0]
        # The jaw and the expression turn a normal a little; the head turns it most.
        normals = torch.einsum("tij,lj->tli", posed.world_R[:, 1], self.samples.normals)
        towards = -posed.positions / posed.positions.norm(dim=-1, keepdim=True)
        seen = (((normals * towards).sum(-1) - LEAST_COSINE) / (1 - LEAST_COSINE)).clamp(min=0)
        seen = seen * self.found[rows, None] * ~found.isnan()
        return found.nan_to_num(), seen

    def _pixels(self, positions: Tensor, log_focal: float) -> Tensor:
        in_plane = torch.stack([positions[..., 0], -positions[..., 1]], dim=-1)
        return self.center.float() + float(np.exp(log_focal)) * in_plane / -positions[..., 2:]

    def _derivatives(
        self, rows: Tensor, frames: Tensor, shape: Tensor, log_focal: float
    ) -> tuple[Float[Tensor, "T L D"], Float[Tensor, "T L Q"]]:
        """Of the errors, for the frames' unknowns, and for shape and focal length."""
        posed = self.samples.points.posed(shape, frames[rows])
        pixels = self._pixels(posed.positions, log_focal)
        slope = self.images.sampled(rows, pixels)[..., 1:].nan_to_num() / SPREAD
        x, y, z = posed.positions.unbind(-1)
        scale = float(np.exp(log_focal)) / -z
        along = (slope[..., 0] * x - slope[..., 1] * y) / -z
        by_position = torch.stack([slope[..., 0], -slope[..., 1], along], dim=-1) * scale[..., None]
        by_frame, by_shape = posed.derivatives(by_position[:, :, None])
        by_focal = (slope * (pixels - self.center.float())).sum(-1)
        return by_frame[:, :, 0], torch.cat([by_shape[:, :, 0], by_focal[..., None]], dim=-1)


def robust_mean(value: Float[Tensor, "T L"], weight: Float[Tensor, "T L"]) -> Float[Tensor, " L"]:
    """Mean over the frames, by iteratively reweighted least squares with Cauchy's weights; 0 where no frame has a weight."""
    trust = weight
    for _ in range(4):
        mean = (trust * value).sum(0) / trust.sum(0).clamp(min=1e-6)
        trust = weight / (1 + ((value - mean) / (0.5 * ROBUST)) ** 2)
    return mean
