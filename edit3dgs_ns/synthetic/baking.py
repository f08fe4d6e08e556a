"""A person's geometry at rest, with its hair, what it wears and its ambient occlusion: computed once, used for every frame."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int

from edit3dgs_ns.capture.rays import build_intersector
from edit3dgs_ns.flame.model import ShapedHead
from edit3dgs_ns.synthetic.canonical import HAIR, LABELS, CanonicalHead
from edit3dgs_ns.synthetic.hair import HairMesh, HairStyle, grow, scalp_lift
from edit3dgs_ns.synthetic.lighting import lobe_directions, normalize
from edit3dgs_ns.synthetic.part import Part


class BakedIdentity:
    """Rest geometry of one person.

    Args:
        head: the template.
        shaped: the head with the person's shape and static offset.
        static_offset: displacement of the template's vertices besides the shape, metres.
        hair: the locks.
        parts: what else grows on the head or is worn.
        new: 1 at the head's vertices that an edit moved or laid bare, 0 elsewhere.
        new_hair: whether an edit grew the locks.
    """

    def __init__(
        self,
        head: CanonicalHead,
        shaped: ShapedHead,
        static_offset: Float[np.ndarray, "v 3"],
        hair: HairMesh,
        parts: tuple[Part, ...] = (),
        new: Float[np.ndarray, " v"] | None = None,
        new_hair: bool = False,
    ):
        self.head, self.shaped, self.static_offset, self.hair, self.parts = (
            head,
            shaped,
            static_offset,
            hair,
            parts,
        )
        self.rest = shaped.v_shaped.numpy().astype(np.float64)
        self.new = np.zeros(len(self.rest), np.float32) if new is None else new.astype(np.float32)
        self.new_hair = new_hair

    @classmethod
    def of_shape(
        cls, head: CanonicalHead, shape: Float[np.ndarray, " s"], style: HairStyle, seed: int
    ) -> BakedIdentity:
        """A person's own form: the shape with its scalp lifted, and the locks of a cut.

        Args:
            seed: of the locks.
        """
        coefficients = torch.from_numpy(np.asarray(shape, np.float32))
        bare = head.model.shaped(coefficients, None).v_shaped.numpy().astype(np.float64)
        lift = scalp_lift(head, style, bare, vertex_normals(bare, head.faces)).astype(np.float32)
        shaped = head.model.shaped(coefficients, torch.from_numpy(lift))
        rest = shaped.v_shaped.numpy().astype(np.float64)
        return cls(head, shaped, lift, grow(head, style, rest, vertex_normals(rest, head.faces), seed))

    @cached_property
    def faces(self) -> Int[np.ndarray, "f 3"]:
        """Faces of head, hair and parts together."""
        meshes: list[HairMesh | Part] = [self.hair, *self.parts]
        faces, first = [self.head.faces], len(self.rest)
        for mesh in meshes:
            faces.append(mesh.faces + first)
            first += len(mesh.vertices)
        return np.concatenate(faces).astype(np.int32)

    @cached_property
    def face_material(self) -> Int[np.ndarray, " f"]:
        """Material of each face."""
        worn = [np.full(len(part.faces), part.material) for part in self.parts]
        return np.concatenate([self.head.face_material, np.full(len(self.hair.faces), HAIR), *worn]).astype(
            np.int32
        )

    @cached_property
    def face_label(self) -> Int[np.ndarray, " f"]:
        """Label of each face."""
        worn = [np.full(len(part.faces), LABELS[part.label]) for part in self.parts]
        return np.concatenate(
            [self.head.face_label, np.full(len(self.hair.faces), LABELS["hair"]), *worn]
        ).astype(np.int32)

    @cached_property
    def visibility(self) -> Float[np.ndarray, "v 13"]:
        """Open share of the hemisphere, then visibility towards each of 12 lobes, for every head vertex at
        rest.
        """
        meshes: list[HairMesh | Part] = [self.hair, *(part for part in self.parts if part.shades)]
        faces, vertices, first = [self.head.faces], [self.rest], len(self.rest)
        for mesh in meshes:
            faces.append(mesh.faces + first)
            vertices.append(mesh.vertices)
            first += len(mesh.vertices)
        return bake_visibility(
            self.head, self.rest, np.concatenate(faces).astype(np.int32), np.concatenate(vertices)
        )


def vertex_normals(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "v 3"]:
    """Area-weighted unit normals."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    face_normal = np.cross(b - a, c - a)
    total = np.empty_like(vertices)
    for axis in range(3):
        total[:, axis] = np.bincount(
            faces.ravel(), np.repeat(face_normal[:, axis], 3), minlength=len(vertices)
        )
    return normalize(total)


def bake_visibility(head, rest, faces, vertices, rays: int = 40) -> Float[np.ndarray, "v 13"]:
    """Cast a fixed fan of directions from every head vertex (`rest`) against the head with what is on it (eyes open,
    mouth closed).
    """
    normals = vertex_normals(rest, head.faces)
    directions = _sphere(2 * rays)
    facing = normals @ directions.T
    scene = build_intersector(vertices, faces)
    vertex, ray = np.nonzero(facing > 0.08)
    origins = rest[vertex] + 0.0012 * normals[vertex]
    hit = scene.run(origins.astype(np.float32), directions[ray].astype(np.float32), output=1)
    # Something far away shades less than something near: fade between 3 and 12 cm.
    open_ray = np.where(hit["primID"] >= 0, np.clip((hit["tfar"] - 0.03) / 0.09, 0.0, 1.0), 1.0)
    weight = facing[vertex, ray]
    count = len(rest)
    ambient = np.bincount(vertex, open_ray * weight, count) / np.maximum(
        np.bincount(vertex, weight, count), 1e-6
    )
    lobes = lobe_directions().astype(np.float64)
    sharp = np.exp(4.0 * (directions[ray] @ lobes.T - 1.0)) * weight[:, None]
    seen = np.stack([np.bincount(vertex, sharp[:, k] * open_ray, count) for k in range(12)], axis=1)
    total = np.stack([np.bincount(vertex, sharp[:, k], count) for k in range(12)], axis=1)
    # Lobes below the horizon hold no rays; the wrapped diffuse term ends there anyway.
    lobe = (seen + 0.05 * ambient[:, None]) / (total + 0.05)
    baked = np.concatenate([ambient[:, None], lobe], axis=1)
    for _ in range(2):
        baked = 0.5 * baked + 0.5 * (head.neighbours @ baked)
    return np.clip(baked, 0.0, 1.0).astype(np.float32)


def _sphere(count: int) -> np.ndarray:
    """Directions spread evenly over the sphere (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * index / count), np.pi * (1 + 5**0.5) * index
    return np.stack([np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], axis=1)
