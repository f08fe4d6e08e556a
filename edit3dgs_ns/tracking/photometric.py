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
from edit3dgs_ns.tracking.banded import ChunkTerms, SequenceSystem
from edit3dgs_ns.tracking.parallel import in_threads
from edit3dgs_ns.tracking.surface_points import PosedPoints, SurfacePoints

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
SPREAD = 0.42
"""Standard deviation of a sample's contrast in a frame."""
ROBUST = 1.0
"""Cauchy's scale: contrasts that are further off count less and less."""
MEAN_FRAMES = 32
"""Frames of which the derivatives' mean is taken."""
CHUNK = 16
"""Frames that a thread looks at at once."""


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
class _Look:
    """The samples in a few frames."""

    rows: Int[Tensor, " T"]
    """The frames."""
    posed: PosedPoints
    value: Float[Tensor, "T L"]
    """Contrast; 0 outside of the image."""
    seen: Float[Tensor, "T L"]
    """How well each is seen, in [0, 1]."""
    by_position: Float[Tensor, "T L 1 3"]
    """Derivatives of the error for the sample's position, in spreads."""
    by_focal: Float[Tensor, "T L"]
    """And for the focal length's logarithm."""

    def derivatives(
        self, factor: Float[Tensor, "T L"]
    ) -> tuple[Float[Tensor, "T L D"], Float[Tensor, "T L Q"]]:
        """Of the errors times a factor, for the frames' unknowns, and for shape and focal length."""
        by_frame, by_shape = self.posed.derivatives(self.by_position * factor[..., None, None])
        return by_frame[:, :, 0], torch.cat([by_shape[:, :, 0], (self.by_focal * factor)[..., None]], dim=-1)


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
        focal = float(np.exp(log_focal))
        looks = list(
            in_threads(
                lambda rows: self._look(rows, frames, shape, focal), torch.arange(len(frames)).split(CHUNK)
            )
        )
        value, seen = (
            torch.cat(parts) for parts in zip(*((look.value, look.seen) for look in looks), strict=True)
        )
        error = (value - robust_mean(value, seen)) / SPREAD
        weight = seen / (1 + (error * SPREAD / ROBUST) ** 2)
        in_common = self._in_common(frames, shape, focal, weight)

        def terms(look: _Look) -> ChunkTerms:
            root = weight[look.rows].sqrt()
            by_frame, by_shared = look.derivatives(root)
            by_shared = by_shared - in_common * root[..., None]
            return ChunkTerms.of(look.rows, error[look.rows] * root, by_frame, by_shared)

        return sum(chunk.add_to(system) for chunk in in_threads(terms, looks))

    def _in_common(self, frames: Tensor, shape: Tensor, focal: float, weight: Tensor) -> Tensor:
        """Mean over the frames of the errors' derivatives for shape and focal length (L, Q)."""
        some = torch.arange(0, len(frames), -(-len(frames) // MEAN_FRAMES))
        share = weight[some] / weight[some].sum(0).clamp(min=1e-6)

        def part(rows: Tensor) -> Tensor:
            look = self._look(some[rows], frames, shape, focal)
            by_shape = look.posed.by_shape(look.by_position * share[rows][..., None, None])[:, :, 0].sum(0)
            return torch.cat([by_shape, (look.by_focal * share[rows]).sum(0)[:, None]], dim=-1)

        return torch.stack(list(in_threads(part, torch.arange(len(some)).split(CHUNK)))).sum(0)

    def _look(self, rows: Tensor, frames: Tensor, shape: Tensor, focal: float) -> _Look:
        """The samples in a few frames."""
        posed = self.samples.points.posed(shape, frames[rows])
        pixels = self._pixels(posed.positions, focal)
        value, slope_x, slope_y = self.images.sampled(rows, pixels).unbind(-1)
        # The jaw and the expression turn a normal a little; the head turns it most.
        normals = torch.einsum("tij,lj->tli", posed.world_R[:, 1], self.samples.normals)
        towards = -posed.positions / posed.positions.norm(dim=-1, keepdim=True)
        seen = (((normals * towards).sum(-1) - LEAST_COSINE) / (1 - LEAST_COSINE)).clamp(min=0)
        seen = seen * self.found[rows, None] * ~value.isnan()
        slope_x, slope_y = slope_x.nan_to_num() / SPREAD, slope_y.nan_to_num() / SPREAD
        x, y, z = posed.positions.unbind(-1)
        along = (slope_x * x - slope_y * y) / -z
        by_position = torch.stack([slope_x, -slope_y, along], dim=-1) * (focal / -z)[..., None]
        offset = pixels - self.center.float()
        by_focal = slope_x * offset[..., 0] + slope_y * offset[..., 1]
        return _Look(rows, posed, value.nan_to_num(), seen, by_position[:, :, None], by_focal)

    def _pixels(self, positions: Tensor, focal: float) -> Tensor:
        in_plane = torch.stack([positions[..., 0], -positions[..., 1]], dim=-1)
        return self.center.float() + focal * in_plane / -positions[..., 2:]


def robust_mean(value: Float[Tensor, "T L"], weight: Float[Tensor, "T L"]) -> Float[Tensor, " L"]:
    """Mean over the frames, by iteratively reweighted least squares with Cauchy's weights; 0 where no frame has a weight."""
    trust = weight
    for _ in range(4):
        mean = (trust * value).sum(0) / trust.sum(0).clamp(min=1e-6)
        trust = weight / (1 + ((value - mean) / (0.5 * ROBUST)) ** 2)
    return mean
