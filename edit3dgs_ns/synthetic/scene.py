"""One person in one pose: trace once, shade as often as wanted.

scene = Scene(random_identity(3), frame) hits = scene.trace(camera.c2w, camera.K, 256, 256,
samples_per_pixel=4) before = hits.shade(identity.appearance, light) after =
hits.shade(EDITS["older"].apply(identity.appearance), light)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, UInt8

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.capture.rays import build_intersector
from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.synthetic import surface as sf
from edit3dgs_ns.synthetic.appearance import Appearance, Light
from edit3dgs_ns.synthetic.canonical import CLOTH, EYE, HAIR, LABELS, MATERIALS, MOUTH, SKIN, TEETH, Landmarks
from edit3dgs_ns.synthetic.identity import BakedIdentity, Identity, vertex_normals
from edit3dgs_ns.synthetic.lighting import (
    SKIN_WRAP,
    diffuse,
    highlight,
    normalize,
    strand_highlight,
    studio,
    to_linear,
    to_srgb,
    visibility_towards,
)
from edit3dgs_ns.synthetic.materials import (
    Paint,
    paint_cloth,
    paint_eye,
    paint_hair,
    paint_mouth,
    paint_skin,
    paint_teeth,
)
from edit3dgs_ns.synthetic.noise import smoothstep
from edit3dgs_ns.synthetic.tracing import Fragments, trace


@dataclass(frozen=True)
class Frame:
    """Expression and pose of one timestep, as in a capture's flame_param file; axis-angle in radians,
    metres.
    """

    expr: Float[np.ndarray, " e"]
    rotation: Float[np.ndarray, " 3"]
    neck_pose: Float[np.ndarray, " 3"]
    jaw_pose: Float[np.ndarray, " 3"]
    eyes_pose: Float[np.ndarray, " 6"]
    translation: Float[np.ndarray, " 3"]


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
        self.head_vertices = pose_vertices(self.baked, frame)
        self.world_from_rest_R, self.world_from_rest_t = self._skull_motion()

    def _skull_motion(self) -> tuple[np.ndarray, np.ndarray]:
        """The rigid motion of the skull from rest (Kabsch's algorithm over the skull's vertices)."""
        index = self.baked.head.skull_vertices
        a, b = self.baked.rest[index], self.head_vertices[index]
        u, _, vt = np.linalg.svd((a - a.mean(0)).T @ (b - b.mean(0)))
        flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))])
        rotation = vt.T @ flip @ u.T
        return rotation, b.mean(0) - rotation @ a.mean(0)

    @cached_property
    def vertices(self) -> Float[np.ndarray, "v 3"]:
        """World positions of head and hair."""
        hair = self.baked.hair.vertices @ self.world_from_rest_R.T + self.world_from_rest_t
        return np.concatenate([self.head_vertices, hair])

    @cached_property
    def _intersector(self):
        return build_intersector(self.vertices, self.baked.faces)

    @cached_property
    def _attributes(self) -> Float[np.ndarray, "v a"]:
        head, hair = self.baked.head, self.baked.hair
        count = len(self.head_vertices)
        table = np.zeros((len(self.vertices), sf.COLUMNS), np.float32)
        table[:count, sf.CANONICAL] = head.assets.v_template
        table[:count, sf.NORMAL] = vertex_normals(self.head_vertices, head.faces)
        table[:count, 9:22] = self.baked.visibility
        table[count:, sf.CANONICAL] = hair.vertices
        table[count:, sf.NORMAL] = hair.normals @ self.world_from_rest_R.T
        table[count:, sf.TANGENT] = hair.tangents @ self.world_from_rest_R.T
        table[count:, 9:22] = 1.0
        for column, values in (
            (sf.ACROSS, hair.across),
            (sf.ALONG, hair.along),
            (sf.LOCK, hair.lock),
            (sf.LAYER, hair.layer),
        ):
            table[count:, column] = values
        return table

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
            self._attributes,
            camera,
            samples_per_pixel,
            len(kinds),
            self._intersector,
        )
        distance = float(np.linalg.norm(camera.c2w[:3, 3] - self.vertices.mean(0)))
        return Hits(self, camera, fragments, kinds[fragments.material], distance / float(camera.K[0, 0]))


def pose_vertices(baked: BakedIdentity, frame: Frame) -> Float[np.ndarray, "v 3"]:
    """World vertices of the head (without the locks) in one frame."""
    fields = ("expr", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation")
    pose = FlamePose(
        **{name: torch.from_numpy(np.asarray(getattr(frame, name), np.float32)[None]) for name in fields}
    )
    with torch.no_grad():
        return baked.shaped.posed(pose)[0].numpy().astype(np.float64)


class Hits:
    """Surface hits of one image's rays, shaded with any appearance and light."""

    def __init__(
        self, scene: Scene, camera: Camera, fragments: Fragments, kind: np.ndarray, footprint: float
    ):
        self.scene, self.camera, self.fragments, self.footprint = scene, camera, fragments, footprint
        self.material, self.base_label = np.divmod(kind, len(LABELS))
        self.landmarks: Landmarks = scene.baked.head.landmarks
        self._groups = {m: np.flatnonzero(self.material == m) for m in range(MATERIALS)}
        self.points = np.ascontiguousarray(fragments.attributes[:, sf.CANONICAL])
        self.normal = normalize(fragments.attributes[:, sf.NORMAL])
        # Hair ribbons are two-sided.
        facing = (self.normal * fragments.view).sum(1, keepdims=True)
        hair = (self.material == HAIR)[:, None]
        self.normal = np.where(
            hair & (facing < 0), normalize(self.normal - 1.6 * facing * fragments.view), self.normal
        )

    @cached_property
    def skin(self) -> sf.SkinSurface:
        """Fields of the skin's fragments."""
        return sf.SkinSurface(self.points[self._groups[SKIN]], self.landmarks, self.footprint)

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
        table = self.fragments.attributes[self._groups[HAIR]]
        return sf.HairSurface(
            table[:, sf.ACROSS], table[:, sf.ALONG], table[:, sf.LOCK], table[:, sf.LAYER], self.footprint
        )

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
        return ambient

    @cached_property
    def mouth_shade(self) -> Float[np.ndarray, " n"]:
        """Light that reaches the inside of the mouth: falls off with depth behind the lips."""
        depth = self.landmarks.mouth[2] - self.points[:, 2]
        side = np.abs(self.points[:, 0]) / self.landmarks.mouth_half_width
        return 0.06 + 0.94 * smoothstep(0.042, 0.008, depth + 0.006 * side**2)

    def lobes_towards(self, direction: tuple[float, float, float]) -> Float[np.ndarray, " n"]:
        """Baked visibility of every fragment towards a world direction."""
        at_rest = self.scene.world_from_rest_R.T @ np.asarray(direction)
        seen = visibility_towards(self.fragments.attributes[:, sf.LOBES], at_rest)
        seen[self._groups[EYE]] = self.ambient[self._groups[EYE]]
        seen[self._groups[HAIR]] = 0.3 + 0.7 * self.hair.open
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
        hair = self._groups[HAIR]
        result[hair] += self._hair_shine(a, light, normal[hair], albedo[hair], gloss[hair])
        if a.metal > 0:
            result += a.metal * (self._metal(a, light, groove) - result)
        return result

    def _bumped(self, a: Appearance) -> Float[np.ndarray, "n 3"]:
        """Normals tilted by the creases of old skin."""
        if a.wrinkles <= 0:
            return self.normal
        skin = self._groups[SKIN]
        visible = (1.0 - self.skin.hair) * (1.0 - self.skin.cloth) * (1.0 - 0.8 * self.skin.lips)
        slope = a.wrinkles * np.clip(0.75 * self.skin.crease_slope, -0.9, 0.9) * visible[:, None]
        world = slope @ self.scene.world_from_rest_R.T
        normal = self.normal.copy()
        n = normal[skin]
        normal[skin] = normalize(n - (world - (world * n).sum(1, keepdims=True) * n))
        return normal

    def _hair_shine(self, a: Appearance, light: Light, normal, albedo, gloss) -> Float[np.ndarray, "n 3"]:
        """A white highlight towards the tip and a broader one of the hair's own colour (Marschner's R and
        TRT, roughly).
        """
        rows = self._groups[HAIR]
        tangent, view = self.fragments.attributes[rows, sf.TANGENT], self.fragments.view[rows]
        tangent = normalize(tangent)
        first = strand_highlight(normalize(tangent - 0.10 * normal), view, normal, 70.0, light)
        second = strand_highlight(normalize(tangent + 0.14 * normal), view, normal, 18.0, light)
        open_ = self.hair.open[:, None]
        return gloss[:, None] * open_ * (0.085 * first + 0.55 * albedo * second)

    def _metal(
        self, a: Appearance, light: Light, groove: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n 3"]:
        """Cast metal: mirrors a studio, darker and greener in hollows, with the drawn features as relief."""
        normal = self.normal.copy()
        skin = self._groups[SKIN]
        relief = (0.10 * self.skin.pore_slope) @ self.scene.world_from_rest_R.T
        normal[skin] = normalize(normal[skin] - relief)
        view = self.fragments.view
        cosine = (normal * view).sum(1, keepdims=True)
        mirrored = 2.0 * cosine * normal - view
        fresnel = np.clip(1.0 - cosine, 0.0, 1.0) ** 5
        tone = to_linear(a.metal_color)
        reflect = tone + (1.0 - tone) * fresnel * 0.5
        seen = (self.lobes_towards(light.key_direction), self.lobes_towards(light.fill_direction))
        ambient = self.ambient.copy()
        for m in (TEETH, MOUTH):
            ambient[self._groups[m]] = 0.6 * self.mouth_shade[self._groups[m]]
        ambient[self._groups[HAIR]] = 0.35 + 0.65 * self.hair.open
        broad = diffuse(normal, ambient[:, None] * np.ones(3), seen, np.zeros(3, np.float32), light)
        shine = studio(mirrored, light, 0.22) * (0.25 + 0.75 * ambient[:, None])
        color = reflect * (0.62 * shine + 0.38 * broad) * (1.0 + 0.45 * groove[:, None])
        patina = smoothstep(0.55, 0.15, ambient)[:, None] * 0.5
        return np.maximum(color + (to_linear((0.20, 0.30, 0.24)) * broad * 0.6 - color) * patina, 0.0)
