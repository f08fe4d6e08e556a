"""One person in one pose: trace once, shade as often as wanted.

scene = Scene(random_identity(3), frame) hits = scene.trace(camera.c2w, camera.K, 256, 256,
samples_per_pixel=4) before = hits.shade(identity.appearance, light) after =
hits.shade(EDITS["older"].apply(identity.appearance), light)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, UInt8

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.capture.rays import build_intersector
from edit3dgs_ns.synthetic import surface as sf
from edit3dgs_ns.synthetic.appearance import Appearance, Light
from edit3dgs_ns.synthetic.baking import BakedIdentity
from edit3dgs_ns.synthetic.canonical import (
    BEARD,
    CLOTH,
    EYE,
    FRAME,
    HAIR,
    KNIT,
    LABELS,
    LENS,
    MOUTH,
    SKIN,
    TEETH,
)
from edit3dgs_ns.synthetic.hits import SurfaceHits
from edit3dgs_ns.synthetic.identity import Identity
from edit3dgs_ns.synthetic.lighting import (
    SKIN_WRAP,
    diffuse,
    highlight,
    mirrored,
    normalize,
    strand_highlight,
    studio,
    to_linear,
    to_srgb,
)
from edit3dgs_ns.synthetic.materials import (
    Paint,
    paint_beard,
    paint_cloth,
    paint_eye,
    paint_frame,
    paint_hair,
    paint_knit,
    paint_lens,
    paint_mouth,
    paint_skin,
    paint_teeth,
)
from edit3dgs_ns.synthetic.noise import smoothstep
from edit3dgs_ns.synthetic.posing import Frame, head_motion, posed_attributes
from edit3dgs_ns.synthetic.tracing import Fragments, trace


@dataclass(frozen=True)
class Render:
    """One image.

    Attributes:
        rgb: sRGB over white; exactly 1 where nothing was hit.
        mask: share of the pixel that the person covers.
        labels: `LABELS` number of the largest part in each pixel.
    """

    rgb: Float[np.ndarray, "h w 3"]
    mask: Float[np.ndarray, "h w"]
    labels: UInt8[np.ndarray, "h w"]


class Scene:
    """One identity, posed."""

    def __init__(self, identity: Identity, frame: Frame):
        self.identity = identity
        self.baked: BakedIdentity = identity.baked
        self.motion = head_motion(self.baked, frame)

    @property
    def head_vertices(self) -> Float[np.ndarray, "v 3"]:
        """World positions of the head without hair and parts."""
        return self.motion.vertices

    @property
    def world_from_rest_R(self) -> Float[np.ndarray, "3 3"]:
        """Rotation of the skull from rest."""
        return self.motion.skull.R

    @property
    def world_from_rest_t(self) -> Float[np.ndarray, " 3"]:
        """Translation of the skull from rest, metres."""
        return self.motion.skull.t

    @property
    def vertices(self) -> Float[np.ndarray, "v 3"]:
        """World positions of head, hair and parts."""
        return self._posed[0]

    @cached_property
    def _posed(self) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "v a"]]:
        return posed_attributes(self.baked, self.motion)

    @cached_property
    def _intersector(self):
        return build_intersector(self.vertices, self.baked.faces)

    def trace(
        self,
        c2w: Float[np.ndarray, "4 4"],
        K: Float[np.ndarray, "3 3"],
        width: int,
        height: int,
        samples_per_pixel: int = 4,
    ) -> Hits:
        """Cast rays through an image.

        Args:
            c2w: camera-to-world, OpenGL axes, metres.
            K: intrinsics in pixels, cy from the top edge.
            samples_per_pixel: stratified samples; 4 to 9 are good.
        """
        camera = Camera(np.asarray(c2w, np.float64), np.asarray(K, np.float64), width, height)
        baked = self.baked
        # Material and label travel together: a fragment has one of each.
        combined = (baked.face_material * len(LABELS) + baked.face_label).astype(np.int32)
        kinds, compact = np.unique(combined, return_inverse=True)
        fragments = trace(
            self.vertices,
            baked.faces,
            compact.astype(np.int32),
            self._posed[1],
            camera,
            samples_per_pixel,
            len(kinds),
            self._intersector,
        )
        distance = float(np.linalg.norm(camera.c2w[:3, 3] - self.vertices.mean(0)))
        return Hits(self, camera, fragments, kinds[fragments.material], distance / float(camera.K[0, 0]))


class Hits(SurfaceHits):
    """Surface hits of one image's rays, shaded with any appearance and light."""

    def __init__(
        self, scene: Scene, camera: Camera, fragments: Fragments, kind: np.ndarray, footprint: float
    ):
        landmarks, form, R = scene.baked.head.landmarks, scene.identity.form, scene.world_from_rest_R
        super().__init__(landmarks, form, R, camera, fragments, kind, footprint)
        self.scene = scene

    def shade(self, appearance: Appearance, light: Light | None = None) -> Render:
        """The image under an appearance and a light (default: the capture's soft studio light)."""
        light = light or Light()
        color = to_srgb(self._radiance(appearance, light))
        height, width = self.camera.height, self.camera.width
        over_white = [
            1.0 + self.fragments_per_pixel(self.fragments.weight * (color[:, k] - 1.0)) for k in range(3)
        ]
        rgb = np.clip(np.stack(over_white, axis=1), 0.0, 1.0).reshape(height, width, 3).astype(np.float32)
        return Render(rgb, self.mask, self.labels)

    def _paints(self, a: Appearance):
        groups = self._groups
        yield groups[SKIN], paint_skin(self.skin, a)
        yield groups[EYE], paint_eye(self.eye, a)
        yield groups[CLOTH], paint_cloth(self.cloth, a)
        yield groups[HAIR], paint_hair(self.hair, a)
        yield groups[TEETH], paint_teeth(self.points[groups[TEETH]], a, self.mouth_shade[groups[TEETH]])
        tongue = (self.base_label[groups[MOUTH]] == LABELS["tongue"]).astype(np.float32)
        yield groups[MOUTH], paint_mouth(a, tongue, self.mouth_shade[groups[MOUTH]])
        yield groups[BEARD], paint_beard(self.beard, a)
        yield groups[KNIT], paint_knit(self.knit, a)
        yield groups[FRAME], paint_frame(len(groups[FRAME]), a)
        yield groups[LENS], paint_lens(len(groups[LENS]))

    def _radiance(self, a: Appearance, light: Light) -> Float[np.ndarray, "n 3"]:
        count = len(self.points)
        albedo = np.zeros((count, 3), np.float32)
        gloss, shininess, wrap, groove = (np.zeros(count, np.float32) for _ in range(4))
        for rows, paint in self._paints(a):
            assert isinstance(paint, Paint)
            albedo[rows], gloss[rows], shininess[rows], wrap[rows], groove[rows] = (
                paint.albedo,
                paint.gloss,
                paint.shininess,
                paint.wrap,
                paint.groove,
            )
        normal = self._bumped(a)
        if a.metal >= 1.0:
            return self._metal(a, light, groove)
        seen = (self.lobes_towards(light.key_direction), self.lobes_towards(light.fill_direction))
        # Light bounces inside folds of skin and keeps their darkness warm.
        occlusion = self.ambient[:, None] ** (1.0 - 0.45 * albedo)
        occlusion[self._groups[TEETH]] = occlusion[self._groups[MOUTH]] = 0.8
        result = albedo * diffuse(normal, occlusion, seen, wrap[:, None] * SKIN_WRAP, light)
        result += (gloss * 0.9)[:, None] * highlight(
            normal, self.fragments.view, seen, np.maximum(shininess, 4.0), light
        )
        for material, surface in ((HAIR, self.hair), (BEARD, self.beard)):
            rows = self._groups[material]
            result[rows] += self._hair_shine(rows, surface, light, normal[rows], albedo[rows], gloss[rows])
        lens = self._groups[LENS]
        result[lens] += 0.10 * studio(mirrored(normal[lens], self.fragments.view[lens]), light, 0.10)
        if a.metal > 0:
            result += a.metal * (self._metal(a, light, groove) - result)
        return result

    def _bumped(self, a: Appearance) -> Float[np.ndarray, "n 3"]:
        """Normals tilted by the creases of old skin and by a hat's ribs."""
        if a.wrinkles <= 0:
            return self._ribbed
        skin = self._groups[SKIN]
        visible = (1.0 - self.skin.hair) * (1.0 - self.skin.cloth) * (1.0 - 0.8 * self.skin.lips)
        slope = a.wrinkles * np.clip(0.75 * self.skin.crease_slope, -0.9, 0.9) * visible[:, None]
        world = slope @ self.world_from_rest_R.T
        normal = self._ribbed.copy()
        n = normal[skin]
        normal[skin] = normalize(n - (world - (world * n).sum(1, keepdims=True) * n))
        return normal

    @cached_property
    def _ribbed(self) -> Float[np.ndarray, "n 3"]:
        rows = self._groups[KNIT]
        if not len(rows):
            return self.normal
        normal = self.normal.copy()
        tangent = normalize(self.fragments.attributes[rows, sf.TANGENT])
        normal[rows] = normalize(normal[rows] + 0.7 * self.knit.slope[:, None] * tangent)
        return normal

    def _hair_shine(
        self, rows, surface: sf.HairSurface, light: Light, normal, albedo, gloss
    ) -> Float[np.ndarray, "n 3"]:
        """A white highlight towards the tip and a broader one of the hair's own colour (Marschner's R and
        TRT, roughly).
        """
        tangent, view = self.fragments.attributes[rows, sf.TANGENT], self.fragments.view[rows]
        tangent = normalize(tangent)
        first = strand_highlight(normalize(tangent - 0.10 * normal), view, normal, 70.0, light)
        second = strand_highlight(normalize(tangent + 0.14 * normal), view, normal, 18.0, light)
        open_ = surface.open[:, None]
        return gloss[:, None] * open_ * (0.085 * first + 0.55 * albedo * second)

    def _metal(
        self, a: Appearance, light: Light, groove: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n 3"]:
        """Cast metal: mirrors a studio, darker and greener in hollows, with the drawn features as relief."""
        normal = self._ribbed.copy()
        skin = self._groups[SKIN]
        relief = (0.10 * self.skin.pore_slope) @ self.world_from_rest_R.T
        normal[skin] = normalize(normal[skin] - relief)
        view = self.fragments.view
        cosine = (normal * view).sum(1, keepdims=True)
        fresnel = np.clip(1.0 - cosine, 0.0, 1.0) ** 5
        tone = to_linear(a.metal_color)
        reflect = tone + (1.0 - tone) * fresnel * 0.5
        seen = (self.lobes_towards(light.key_direction), self.lobes_towards(light.fill_direction))
        ambient = self.ambient.copy()
        for m in (TEETH, MOUTH):
            ambient[self._groups[m]] = 0.6 * self.mouth_shade[self._groups[m]]
        ambient[self._groups[HAIR]] = 0.35 + 0.65 * self.hair.open
        ambient[self._groups[BEARD]] = 0.35 + 0.65 * self.beard.open
        broad = diffuse(normal, ambient[:, None] * np.ones(3), seen, np.zeros(3, np.float32), light)
        shine = studio(mirrored(normal, view), light, 0.22) * (0.25 + 0.75 * ambient[:, None])
        color = reflect * (0.62 * shine + 0.38 * broad) * (1.0 + 0.45 * groove[:, None])
        patina = smoothstep(0.55, 0.15, ambient)[:, None] * 0.5
        return np.maximum(color + (to_linear((0.20, 0.30, 0.24)) * broad * 0.6 - color) * patina, 0.0)
