"""What grows on a head or is worn, and how it moves: meshes at rest, carried by the skull or by the skin below them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from edit3dgs_ns.flame.rotations import axis_angle_to_matrix
from edit3dgs_ns.synthetic.canonical import CanonicalHead


@dataclass(frozen=True)
class SkinAnchor:
    """Places on the skin that carry vertices: a vertex keeps its offset to its place, turned as the joints turn the skin there."""

    corners: Int[np.ndarray, "n 3"]
    """The head's vertices around each place."""
    weights: Float[np.ndarray, "n 3"]
    """Barycentric."""


@dataclass(frozen=True)
class Part:
    """A mesh at rest, in metres.

    `across`, `along`, `lock` and `layer` are what its paint needs to know: of locks, see `HairMesh`.
    """

    material: int
    """A material of `canonical`."""
    label: str
    """A key of LABELS."""
    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    normals: Float[np.ndarray, "n 3"]
    tangents: Float[np.ndarray, "n 3"]
    across: Float[np.ndarray, " n"]
    along: Float[np.ndarray, " n"]
    lock: Float[np.ndarray, " n"]
    layer: Float[np.ndarray, " n"]
    anchor: SkinAnchor | None = None
    """None: rigid with the skull."""
    shades: bool = True
    """Whether it takes light from the skin around it."""


@dataclass(frozen=True)
class Rigid:
    """A rigid motion from rest to the world: x -> R x + t, metres."""

    R: Float[np.ndarray, "3 3"]
    t: Float[np.ndarray, " 3"]

    @classmethod
    def of(cls, rest: Float[np.ndarray, "n 3"], posed: Float[np.ndarray, "n 3"]) -> Rigid:
        """The motion that brings points nearest to where they went (Kabsch's algorithm)."""
        u, _, vt = np.linalg.svd((rest - rest.mean(0)).T @ (posed - posed.mean(0)))
        flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))])
        rotation = vt.T @ flip @ u.T
        return cls(rotation, posed.mean(0) - rotation @ rest.mean(0))

    def __call__(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """The points in the world."""
        return points @ self.R.T + self.t


@dataclass(frozen=True)
class HeadMotion:
    """How one frame moves what is on the head."""

    head: CanonicalHead
    rest: Float[np.ndarray, "v 3"]
    vertices: Float[np.ndarray, "v 3"]
    """The head's vertices in the world."""
    skull: Rigid
    joints: Float[np.ndarray, "j 3 3"]
    """Rotation of each joint in the world."""

    def of_part(self, part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World vertices, normals and tangents of a part."""
        if part.anchor is None:
            R = self.skull.R.T
            return self.skull(part.vertices), part.normals @ R, part.tangents @ R
        corners, weights = part.anchor.corners, part.anchor.weights[..., None]
        place = (self.vertices[corners] * weights).sum(1)
        offset = part.vertices - (self.rest[corners] * weights).sum(1)
        share = (self.head.model.weights.numpy()[corners] * weights).sum(1)
        turn = np.einsum("nj,jrc->nrc", share, self.joints)
        moved = (np.einsum("nrc,nc->nr", turn, vector) for vector in (offset, part.normals, part.tangents))
        vertex, normal, tangent = moved
        return place + vertex, normal, tangent

    def of_hair(
        self, vertices: Float[np.ndarray, "n 3"], resting: Float[np.ndarray, " n"] | None
    ) -> Float[np.ndarray, "n 3"]:
        """World vertices of locks; a share of each, `resting`, stays with the shoulders when the head turns on the neck."""
        with_skull = self.skull(vertices)
        if resting is None:
            return with_skull
        index = np.flatnonzero(self.head.model.weights.numpy()[:, 0] > 0.99)
        with_torso = Rigid.of(self.rest[index], self.vertices[index])(vertices)
        return with_skull + resting[:, None] * (with_torso - with_skull)


def joint_rotations(parents: tuple[int, ...], poses: Float[np.ndarray, "j 3"]) -> Float[np.ndarray, "j 3 3"]:
    """World rotations of a chain of joints from their own, which are axis-angle in radians."""
    own = axis_angle_to_matrix(torch.from_numpy(np.asarray(poses, np.float64))).numpy()
    world: list[np.ndarray] = []
    for joint, parent in enumerate(parents):
        world.append(own[joint] if parent < 0 else world[parent] @ own[joint])
    return np.stack(world)
