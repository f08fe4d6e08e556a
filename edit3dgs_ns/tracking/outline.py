"""The head's outline, whose hair and ears keep their shape: how it moves against the fitted head says how the head is turned.

Landmarks and skin are on the front of the face, a few centimetres deep: a turn about them by a degree moves them by less than a
pixel, and expressions can take it up. Hair and ears are ten centimetres off. Their outline in the mask does not lie on that of the
fitted head, but for a head that is fitted well its distance is the same in all frames, vertex by vertex:

    r[t, v] = (d[t, v] - D_v) / spread

d is the distance between the two outlines at vertex v (`hair_offsets.outline_shift`), and D_v its robust mean over the frames,
eliminated as a sample's contrast is (`photometric`). The outline is drawn once; how it moves with the unknowns is linearised.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.tracking.banded import ChunkTerms, SequenceSystem
from edit3dgs_ns.tracking.hair_offsets import OutlineTracer
from edit3dgs_ns.tracking.parallel import in_threads
from edit3dgs_ns.tracking.photometric import robust_mean
from edit3dgs_ns.tracking.surface_points import PosedPoints, SurfacePoints

SIDE = 160
"""Pixels of the longer side at which outlines are drawn and compared, at most: distances are known to a part of a pixel."""
SPREAD = 0.001
"""Standard deviation of a distance between outlines, metres: flickering masks, strands of hair."""
ROBUST = 2.5
"""Cauchy's scale, in spreads."""
INDEPENDENT_SHARE = 0.1
"""Neighbours on an outline err together."""
CHUNK = 16
"""Frames whose derivatives a thread computes at once."""


@dataclass(frozen=True)
class OutlineTerm:
    """The errors of U vertices that are on the outline in some of T frames, for the normal equations of `fit`."""

    points: SurfacePoints
    """The vertices, with the hair's offsets; float32."""
    center: Float[Tensor, " 2"]
    """Principal point, pixels."""
    drawn: Float[Tensor, "T U 2"]
    """Where the vertices were when the outline was drawn, pixels."""
    directions: Float[Tensor, "T U 2"]
    """Unit vectors in the image along which distances are taken."""
    per_metre: Float[Tensor, "T U"]
    """Pixels of a metre along them."""
    distance: Float[Tensor, "T U"]
    """From the drawn outline to the mask's, metres; 0 where unknown."""
    known: Float[Tensor, "T U"]
    """1 where the vertex is on the outline, else 0."""

    @classmethod
    def of(
        cls,
        head: FlameAssets,
        motion: FlameMotion,
        camera: Camera,
        masks: Iterable[Float[np.ndarray, "height width"]],
    ) -> OutlineTerm:
        """Draws the head in every frame and compares its outline with the mask's.

        Args:
            head: with a region "scalp".
            motion: fitted to the frames, with static offsets of the hair.
            camera: that took them.
            masks: share of each pixel that shows the person, in [0, 1], of every frame.
        """
        assert motion.static_offset is not None
        small, scale = _shrunk(camera)
        tracer, size = OutlineTracer.of(head, motion), (small.width, small.height)
        shifts = [
            tracer.shift(t, small, cv2.resize(mask, size, interpolation=cv2.INTER_AREA))
            for t, mask in enumerate(masks)
        ]
        chosen = np.unique(np.concatenate([shift.vertices for shift in shifts]))
        shape = (len(shifts), len(chosen))
        drawn, directions = np.zeros((*shape, 2)), np.zeros((*shape, 2))
        per_metre, distance, known = np.ones(shape), np.zeros(shape), np.zeros(shape)
        for t, shift in enumerate(shifts):
            at = np.searchsorted(chosen, shift.vertices)
            drawn[t, at], directions[t, at] = shift.starts / scale, shift.directions
            per_metre[t, at], known[t, at] = shift.per_metre / scale, 1
            distance[t, at] = shift.pixels / shift.per_metre
        tensors = (torch.from_numpy(a).float() for a in (drawn, directions, per_metre, distance, known))
        center = torch.from_numpy(camera.K[:2, 2]).float()
        return cls(_points(head, motion, chosen), center, *tensors)

    def add_to(
        self,
        system: SequenceSystem,
        frames: Float[Tensor, "T D"],
        shape: Float[Tensor, " S"],
        log_focal: float,
    ) -> float:
        """Add the errors to the normal equations; returns their sum of squares now."""
        if not self.known.any():
            return 0.0
        frames, shape, focal = frames.float(), shape.float(), float(np.exp(log_focal))
        parts = torch.arange(len(frames)).split(CHUNK)
        looks = list(in_threads(lambda rows: self.points.posed(shape, frames[rows]), parts))
        moved = torch.cat([self._moved(rows, posed, focal) for rows, posed in zip(parts, looks, strict=True)])
        distance = (self.distance - moved / self.per_metre) / SPREAD
        error = robust_mean(distance, self.known) - distance
        weight = INDEPENDENT_SHARE * self.known / (1 + (error / ROBUST) ** 2)

        def terms(part: tuple[Tensor, PosedPoints]) -> ChunkTerms:
            rows, posed = part
            root = weight[rows].sqrt()
            x, y, z = posed.positions.unbind(-1)
            across, down = (self.directions[rows] / (SPREAD * self.per_metre[rows])[..., None]).unbind(-1)
            along = (across * x - down * y) / -z
            by_position = torch.stack([across, -down, along], dim=-1) * (root * focal / -z)[..., None]
            # Whose outline it is does not tell the shape of a head that is hidden under hair.
            by_frame, by_shape = posed.derivatives(by_position[:, :, None])
            nothing = by_shape.new_zeros(*by_shape.shape[:2], by_shape.shape[-1] + 1)
            return ChunkTerms.of(rows, error[rows] * root, by_frame[:, :, 0], nothing)

        return sum(chunk.add_to(system) for chunk in in_threads(terms, zip(parts, looks, strict=True)))

    def _moved(self, rows: Tensor, posed: PosedPoints, focal: float) -> Float[Tensor, "R U"]:
        """Pixels by which the vertices have moved along the directions since the outline was drawn."""
        x, y, z = posed.positions.unbind(-1)
        pixels = self.center + focal * torch.stack([x, -y], dim=-1) / -z[..., None]
        return ((pixels - self.drawn[rows]) * self.directions[rows]).sum(-1)


def _shrunk(camera: Camera) -> tuple[Camera, float]:
    """The same camera with at most SIDE pixels a side, and the factor of its sides."""
    scale = min(1.0, SIDE / max(camera.width, camera.height))
    width, height = round(camera.width * scale), round(camera.height * scale)
    return camera.resized(width, height), scale


def _points(head: FlameAssets, motion: FlameMotion, vertices: np.ndarray) -> SurfacePoints:
    """Vertices of the head with the motion's static offsets, as points of a face."""
    assert motion.static_offset is not None
    offset = motion.static_offset.reshape(-1, 3).double().numpy()
    model = FlameModel.from_assets(replace(head, v_template=head.v_template + offset))
    _, first = np.unique(head.faces, return_index=True)  # of each vertex, all of which belong to a face
    faces, corners = np.divmod(first[vertices], 3)
    return SurfacePoints.of(
        model, torch.from_numpy(faces), torch.from_numpy(np.eye(3)[corners]), torch.float32
    )
