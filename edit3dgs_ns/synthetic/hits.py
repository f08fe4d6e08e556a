"""Where an image's rays met a person: surface fields of every hit, and masks, labels and depth of the image."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Float, UInt8

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.synthetic import surface as sf
from edit3dgs_ns.synthetic.canonical import (
    BEARD,
    CLOTH,
    EYE,
    HAIR,
    KNIT,
    LABELS,
    MATERIALS,
    MOUTH,
    SKIN,
    TEETH,
    Landmarks,
)
from edit3dgs_ns.synthetic.form import Form
from edit3dgs_ns.synthetic.lighting import normalize, visibility_towards
from edit3dgs_ns.synthetic.noise import smoothstep
from edit3dgs_ns.synthetic.tracing import Fragments


class SurfaceHits:
    """Surface hits of one image's rays.

    Args:
        landmarks: of the template.
        form: of the person.
        world_from_rest_R: rotation of the skull from rest.
        kind: material * number of labels + label of each fragment.
        footprint: a pixel's size on the head, metres.
    """

    def __init__(
        self,
        landmarks: Landmarks,
        form: Form,
        world_from_rest_R: Float[np.ndarray, "3 3"],
        camera: Camera,
        fragments: Fragments,
        kind: np.ndarray,
        footprint: float,
    ):
        self.landmarks, self.form, self.world_from_rest_R = landmarks, form, world_from_rest_R
        self.camera, self.fragments, self.footprint = camera, fragments, footprint
        self.material, self.base_label = np.divmod(kind, len(LABELS))
        self._groups = {m: np.flatnonzero(self.material == m) for m in range(MATERIALS)}
        self.points = np.ascontiguousarray(fragments.attributes[:, sf.CANONICAL])
        self.normal = normalize(fragments.attributes[:, sf.NORMAL])
        # Ribbons are two-sided.
        facing = (self.normal * fragments.view).sum(1, keepdims=True)
        hair = ((self.material == HAIR) | (self.material == BEARD))[:, None]
        self.normal = np.where(
            hair & (facing < 0), normalize(self.normal - 1.6 * facing * fragments.view), self.normal
        )

    @cached_property
    def skin(self) -> sf.SkinSurface:
        """Fields of the skin's fragments."""
        return sf.SkinSurface(self.points[self._groups[SKIN]], self.landmarks, self.footprint, self.form)

    @cached_property
    def eye(self) -> sf.EyeSurface:
        """Fields of the eyes' fragments."""
        return sf.EyeSurface(self.points[self._groups[EYE]], self.landmarks)

    @cached_property
    def cloth(self) -> sf.SkinSurface:
        """Fields of the cut face's fragments."""
        return sf.SkinSurface(self.points[self._groups[CLOTH]], self.landmarks, self.footprint)

    @cached_property
    def hair(self) -> sf.HairSurface:
        """Fields of the locks' fragments."""
        return self._locks(HAIR)

    @cached_property
    def beard(self) -> sf.HairSurface:
        """Fields of the beard's fragments."""
        return self._locks(BEARD)

    def _locks(self, material: int) -> sf.HairSurface:
        table = self.fragments.attributes[self._groups[material]]
        return sf.HairSurface(
            table[:, sf.ACROSS], table[:, sf.ALONG], table[:, sf.LOCK], table[:, sf.LAYER], self.footprint
        )

    @cached_property
    def knit(self) -> sf.KnitSurface:
        """Fields of the hat's fragments."""
        table = self.fragments.attributes[self._groups[KNIT]]
        return sf.KnitSurface(table[:, sf.ACROSS], table[:, sf.ALONG], table[:, sf.LAYER], self.footprint)

    @cached_property
    def ambient(self) -> Float[np.ndarray, " n"]:
        """Open share of each fragment's hemisphere."""
        ambient = np.clip(self.fragments.attributes[:, sf.AMBIENT], 0.0, 1.0)
        eye, hair = self._groups[EYE], self._groups[HAIR]
        ambient[self._groups[SKIN]] = 0.12 + 0.88 * ambient[self._groups[SKIN]]
        # The rest pose shows the eyes' front only between the lids: shade by height under the upper lid
        # instead.
        d = self.eye.direction
        ambient[eye] = 0.85 * smoothstep(0.42, 0.05, d[:, 1]) * smoothstep(0.95, 0.55, np.abs(d[:, 0])) + 0.15
        ambient[hair] = self.hair.open
        ambient[self._groups[BEARD]] = self.beard.open
        return ambient

    @cached_property
    def mouth_shade(self) -> Float[np.ndarray, " n"]:
        """Light that reaches the inside of the mouth: falls off with depth behind the lips."""
        depth = self.landmarks.mouth[2] - self.points[:, 2]
        side = np.abs(self.points[:, 0]) / self.landmarks.mouth_half_width
        return 0.06 + 0.94 * smoothstep(0.042, 0.008, depth + 0.006 * side**2)

    def lobes_towards(self, direction: tuple[float, float, float]) -> Float[np.ndarray, " n"]:
        """Baked visibility of every fragment towards a world direction."""
        at_rest = self.world_from_rest_R.T @ np.asarray(direction)
        seen = visibility_towards(self.fragments.attributes[:, sf.LOBES], at_rest)
        seen[self._groups[EYE]] = self.ambient[self._groups[EYE]]
        seen[self._groups[HAIR]] = 0.3 + 0.7 * self.hair.open
        seen[self._groups[BEARD]] = 0.3 + 0.7 * self.beard.open
        for m in (TEETH, MOUTH):
            seen[self._groups[m]] = 1.0
        return np.clip(seen, 0.02, 1.0)

    @cached_property
    def labels(self) -> UInt8[np.ndarray, "h w"]:
        """True region of every pixel: the part with the largest share, background where less than half is
        covered.
        """
        label = self.base_label.copy()
        skin, eye = self._groups[SKIN], self._groups[EYE]
        drawn = (
            (self.skin.lips, "lips"),
            (self.skin.brows, "brows"),
            (self.skin.hair, "hair"),
            (self.skin.cloth, "clothes"),
        )
        for amount, name in drawn:
            label[skin[amount > 0.5]] = LABELS[name]
        label[eye[self.eye.radius < 1.0]] = LABELS["iris"]
        pixels = self.camera.width * self.camera.height
        share = np.bincount(
            self.fragments.pixel * len(LABELS) + label, self.fragments.weight, pixels * len(LABELS)
        )
        share = share.reshape(pixels, len(LABELS))
        share[:, 0] = 1.0 - self.fragments_per_pixel(self.fragments.weight)
        covered = 1.0 - share[:, 0] >= 0.5
        best = np.where(covered, share[:, 1:].argmax(axis=1) + 1, 0)
        return best.astype(np.uint8).reshape(self.camera.height, self.camera.width)

    def fragments_per_pixel(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " p"]:
        """Sum of a fragment value over each pixel."""
        return np.bincount(self.fragments.pixel, values, self.camera.width * self.camera.height)

    @cached_property
    def mask(self) -> Float[np.ndarray, "h w"]:
        """Share of each pixel that is covered."""
        total = np.minimum(self.fragments_per_pixel(self.fragments.weight), 1.0)
        return total.reshape(self.camera.height, self.camera.width).astype(np.float32)

    @cached_property
    def depth(self) -> Float[np.ndarray, "h w"]:
        """Depth along the camera's axis in metres, mean over what a pixel sees of the person; NaN where that is nothing."""
        ahead = -self.camera.c2w[:3, 2]
        depth = (self.fragments.attributes[:, sf.POSITION] - self.camera.c2w[:3, 3]) @ ahead
        weight = self.fragments.weight
        covered = self.fragments_per_pixel(weight)
        total = self.fragments_per_pixel(weight * depth)
        mean = np.where(covered > 0, total / np.maximum(covered, 1e-9), np.nan)
        return mean.reshape(self.camera.height, self.camera.width).astype(np.float32)

    @cached_property
    def new_parts(self) -> Float[np.ndarray, "h w"]:
        """Share of each pixel that shows what an edit of form added, moved or laid bare; 0 without such an edit."""
        share = self.fragments_per_pixel(self.fragments.weight * self.fragments.attributes[:, sf.NEW])
        return np.minimum(share, 1.0).reshape(self.camera.height, self.camera.width).astype(np.float32)
