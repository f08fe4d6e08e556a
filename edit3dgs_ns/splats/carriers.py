"""Which face of the head carries a point that is off the head, so that it moves as one piece with what it belongs to.

The nearest face is a poor carrier: before an eye that is a lid, which would shake a pair of glasses with every blink. Of the
nearest faces the one is taken that moves the point most like the skull or most like the jaw: the carried point is taken back by
the rigid motion of either, and what it has moved all the same counts against the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from edit3dgs_ns.splats.binding import TriangleFrames
from edit3dgs_ns.splats.rig import TrackedHead

_CANDIDATES = 24
_TIMESTEPS = 6
_MOVED = 3.0
"""A metre that a face shakes a point counts as many metres of distance."""
_NECK, _JAW = 1, 2
"""Joints of the head model."""
_OWNED = 0.9
"""Skinning weight from which a vertex moves with one joint."""
_CHUNK = 8192


@dataclass(frozen=True)
class Carriers:
    """Chooses the faces that carry points.

    Attributes:
        rest: the triangle frames of the head at rest.
        posed: those of some timesteps.
        pieces: for each rigid piece and timestep the rotation and translation, posed from rest.
    """

    rest: TriangleFrames
    posed: TriangleFrames
    pieces: tuple[tuple[Float[Tensor, "times 3 3"], Float[Tensor, "times 3"]], ...]

    @classmethod
    @torch.no_grad()
    def of(cls, head: TrackedHead) -> Carriers:
        """Those of a head, by some timesteps of its motion."""
        from edit3dgs_ns.splats.binding import triangle_frames

        count = min(_TIMESTEPS, head.num_timesteps)
        timesteps = torch.linspace(0, head.num_timesteps - 1, count).round().long()
        vertices, rest = head.vertices(timesteps.to(head.shape.device)), head.canonical_vertices()
        weights = head.flame.weights
        pieces = [
            _rigid(rest[owned], vertices[:, owned])
            for joint in (_NECK, _JAW)
            if int((owned := weights[:, joint] > _OWNED).sum()) >= 3
        ]
        frames = [triangle_frames(posed, head.faces) for posed in vertices]
        posed = TriangleFrames(
            torch.stack([f.centre for f in frames]),
            torch.stack([f.rotation for f in frames]),
            torch.stack([f.size for f in frames]),
        )
        return cls(head.rest_frames(), posed, tuple(pieces))

    @torch.no_grad()
    def choose(
        self, points: Float[Tensor, "points 3"], allowed: Bool[Tensor, " faces"] | None = None
    ) -> Int[Tensor, " points"]:
        """The face that carries each point.

        Args:
            points: at rest, metres.
            allowed: faces that may carry any; None for all.
        """
        size = self.rest.size
        usable = size > 1e-6 if allowed is None else allowed & (size > 1e-6)
        faces = usable.nonzero()[:, 0]
        count = min(_CANDIDATES, len(faces))
        tree = cKDTree(self.rest.centre[faces].cpu().numpy())
        chosen = []
        for chunk in points.split(_CHUNK):
            distance, near = tree.query(chunk.cpu().numpy(), k=count)
            candidates = faces[torch.from_numpy(near).reshape(len(chunk), count).to(faces.device)]
            far = torch.from_numpy(distance).reshape(len(chunk), count).to(chunk)
            cost = far + _MOVED * self._shaken(chunk, candidates)
            chosen.append(candidates.gather(1, cost.argmin(dim=1, keepdim=True))[:, 0])
        return torch.cat(chosen) if chosen else faces.new_zeros(0)

    def _shaken(
        self, points: Float[Tensor, "points 3"], faces: Int[Tensor, "points k"]
    ) -> Float[Tensor, "points k"]:
        """How far each face moves its point against the piece that it follows best, root mean square over the timesteps."""
        local = local_points(points[:, None].expand(-1, faces.shape[1], -1), faces, self.rest)
        squares: list[Tensor] = []
        for time in range(len(self.posed.size)):
            carried = world_points(local, faces, self.posed[time])
            back = [
                ((carried - t[time]) @ R[time] - points[:, None]).square().sum(dim=-1) for R, t in self.pieces
            ]
            squares.append(torch.stack(back) if back else carried.new_zeros(1, *faces.shape))
        return torch.stack(squares).mean(dim=0).amin(dim=0).sqrt()


def local_points(
    points: Float[Tensor, "*n 3"], faces: Int[Tensor, "*n"], frames: TriangleFrames
) -> Float[Tensor, "*n 3"]:
    """Points in the frames of their faces, in sizes of the face."""
    offset = (points - frames.centre[faces])[..., None, :] @ frames.rotation[faces]
    return offset[..., 0, :] / frames.size[faces][..., None]


def world_points(
    local: Float[Tensor, "*n 3"], faces: Int[Tensor, "*n"], frames: TriangleFrames
) -> Float[Tensor, "*n 3"]:
    """The inverse of `local_points`."""
    turned = (frames.rotation[faces] @ local[..., None])[..., 0]
    return frames.size[faces][..., None] * turned + frames.centre[faces]


def _rigid(
    rest: Float[Tensor, "n 3"], posed: Float[Tensor, "times n 3"]
) -> tuple[Float[Tensor, "times 3 3"], Float[Tensor, "times 3"]]:
    """The rotations and translations that take points at rest nearest to where they are posed (Kabsch, 1976)."""
    middle, middles = rest.mean(dim=0), posed.mean(dim=1)
    u, _, vt = torch.linalg.svd((rest - middle).T @ (posed - middles[:, None]))
    sign = torch.ones_like(u[..., 0])
    sign[..., 2] = torch.sign(torch.linalg.det(u @ vt))
    R = vt.transpose(1, 2) @ (sign[..., None] * u.transpose(1, 2))
    return R, middles - (R @ middle[:, None])[..., 0]
