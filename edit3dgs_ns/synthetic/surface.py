"""What the surface is like at every fragment, whatever its colours: masks, noises and creases, evaluated
once.

An edit only changes colours and strengths, so all images of one trace share this.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.synthetic.beard_region import beard_coverage
from edit3dgs_ns.synthetic.canonical import (
    Landmarks,
    brow_position,
    collar_distance,
    ear_weight,
    hair_coverage,
    lip_distance,
    receded,
)
from edit3dgs_ns.synthetic.form import PLAIN, Form
from edit3dgs_ns.synthetic.lighting import normalize
from edit3dgs_ns.synthetic.noise import fbm, smoothstep
from edit3dgs_ns.synthetic.old_skin import old_skin_height
from edit3dgs_ns.synthetic.wrinkles import wrinkle_height

# Columns of the vertex attributes that tracing interpolates.
CANONICAL, NORMAL, TANGENT = slice(0, 3), slice(3, 6), slice(6, 9)
AMBIENT, LOBES = 9, slice(10, 22)
ACROSS, ALONG, LOCK, LAYER = 22, 23, 24, 25
POSITION, NEW = slice(26, 29), 29
COLUMNS = 30


def _bump(points: np.ndarray, centre, radius) -> np.ndarray:
    """exp(-d^2) of the ellipsoidal distance to a centre; x is mirrored."""
    squares = np.zeros(len(points))
    for k, column in enumerate((np.abs(points[:, 0]), points[:, 1], points[:, 2])):
        squares += ((column - centre[k]) / radius[k]) ** 2
    return np.exp(-squares).astype(np.float32)


@dataclass(frozen=True)
class SkinSurface:
    """Fields over the skin's fragments; `footprint` is a pixel's size on the skin in metres."""

    points: Float[np.ndarray, "n 3"]
    landmarks: Landmarks
    footprint: float
    form: Form = PLAIN

    @cached_property
    def red(self) -> Float[np.ndarray, " n"]:
        """Where blood shows: cheeks, nose, ears, chin, lids, knuckle of the brow."""
        m, p = self.landmarks, self.points
        cheek = 1.0 * _bump(p, [0.040, m.eye[1] - 0.036, 0.040], [0.019, 0.017, 0.03])
        nose = 0.95 * _bump(p, m.nose_tip - [0, 0.001, 0.004], [0.013, 0.012, 0.02])
        chin = 0.45 * _bump(p, [0.0, m.mouth[1] - 0.036, 0.05], [0.016, 0.012, 0.03])
        lids = 0.45 * _bump(p, m.eye + np.array([0.0, 0.002, 0.012]), [0.022, 0.015, 0.03])
        ears = 0.9 * ear_weight(p)
        mouth = 0.35 * _bump(p, m.mouth, [0.030, 0.016, 0.03])
        neck = 0.25 * smoothstep(-0.09, -0.12, p[:, 1])
        return cheek + nose + chin + lids + ears + mouth + neck

    @cached_property
    def mottle(self) -> Float[np.ndarray, " n"]:
        """Slow variation of tone."""
        return fbm(self.points, 55.0, 3, seed=1, footprint=self.footprint)

    @cached_property
    def pores(self) -> Float[np.ndarray, " n"]:
        """Fine grain."""
        return fbm(self.points, 420.0, 3, seed=2, footprint=self.footprint)

    @cached_property
    def freckles(self) -> Float[np.ndarray, " n"]:
        """Small spots, mostly over nose and cheeks."""
        m = self.landmarks
        spots = smoothstep(0.42, 0.72, fbm(self.points, 330.0, 1, seed=3, footprint=0.7 * self.footprint))
        spots += 0.6 * smoothstep(
            0.45, 0.75, fbm(self.points, 520.0, 1, seed=9, footprint=0.7 * self.footprint)
        )
        where = _bump(self.points, [0.028, m.eye[1] - 0.030, 0.045], [0.030, 0.024, 0.04]) + 0.25
        return spots * where

    @cached_property
    def age_spots(self) -> Float[np.ndarray, " n"]:
        """Larger brown patches at temples, cheeks and forehead."""
        m = self.landmarks
        spots = smoothstep(0.40, 0.62, fbm(self.points, 95.0, 2, seed=4, footprint=self.footprint))
        spots += 0.7 * smoothstep(0.40, 0.6, fbm(self.points, 190.0, 2, seed=14, footprint=self.footprint))
        where = 0.45 + _bump(self.points, [0.055, m.eye[1] + 0.01, 0.01], [0.022, 0.06, 0.04])
        return spots * where

    @cached_property
    def beard(self) -> Float[np.ndarray, " n"]:
        """Where a beard grows: upper lip, chin, jaw, upper neck; with the grain of stubble."""
        m, p = self.landmarks, self.points
        x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
        # The beard's upper edge runs from the corner of the mouth up to the sideburn.
        edge = np.interp(
            x, [0.0, 0.022, 0.040, 0.055, 0.064, 0.080], [-0.014, -0.018, -0.032, -0.020, 0.010, 0.030]
        )
        jaw = (
            smoothstep(0.008, -0.006, y - edge)
            * smoothstep(-0.105, -0.075, y)
            * smoothstep(-0.030, -0.012, z)
        )
        bare = _bump(p, m.mouth + np.array([0.014, -0.018, 0.0]), [0.008, 0.006, 0.03]) * 0.5
        grain = 0.75 + 0.5 * fbm(p, 520.0, 2, seed=6, footprint=self.footprint)
        return np.clip(jaw - bare, 0, 1) * grain

    @cached_property
    def beard_roots(self) -> Float[np.ndarray, " n"]:
        """How much of the skin the roots of a grown beard cover."""
        if self.form.beard == "none":
            return np.zeros(len(self.points), np.float32)
        return beard_coverage(self.points, self.landmarks)

    @cached_property
    def lips(self) -> Float[np.ndarray, " n"]:
        """1 on the red of the lips, with a soft edge."""
        wobble = 0.0005 * fbm(self.points, 240.0, 1, seed=21) - 0.0019 * self.form.age
        return smoothstep(-0.0007, 0.0012, lip_distance(self.points, self.landmarks) + wobble)

    @cached_property
    def lip_lines(self) -> Float[np.ndarray, " n"]:
        """Fine upright lines on the lips."""
        return fbm(self.points, (700.0, 90.0, 90.0), 2, seed=22, footprint=self.footprint)

    @cached_property
    def brows(self) -> Float[np.ndarray, " n"]:
        """Density of the brows' hairs, 0 to 1, in strokes that lean outwards."""
        along, across = brow_position(self.points, self.landmarks)
        x, y = np.abs(self.points[:, 0]), self.points[:, 1]
        lean = np.clip(1.25 - 1.2 * along, 0.15, 1.3)
        stroke_place = np.stack([(x - y * lean * 0.55) * 1.0, y * 0.22, self.points[:, 2] * 0.1], axis=1)
        strokes = fbm(stroke_place, 1150.0, 2, seed=31, footprint=self.footprint)
        ragged = across + 0.30 * strokes
        body = (
            smoothstep(1.25, 0.55, np.abs(ragged))
            * smoothstep(-0.06, 0.07, along)
            * smoothstep(1.04, 0.90, along)
        )
        return body * np.clip(0.95 + 0.35 * strokes, 0.0, 1.0)

    @cached_property
    def hair(self) -> Float[np.ndarray, " n"]:
        """How much of the skin the roots of the hair cover."""
        if self.form.hair == "bald":
            return np.zeros(len(self.points), np.float32)
        return hair_coverage(self.points, self.landmarks, self.form.age)

    @cached_property
    def hair_grain(self) -> Float[np.ndarray, " n"]:
        """Strands in the hair painted on the scalp."""
        return fbm(self.points * [1.0, 0.35, 0.35], 650.0, 2, seed=41, footprint=self.footprint)

    @cached_property
    def hair_shadow(self) -> Float[np.ndarray, " n"]:
        """Darkness that the hair casts on the skin just below it."""
        if self.form.hair == "bald":
            return np.zeros(len(self.points), np.float32)
        return smoothstep(-0.016, 0.002, receded(self.points, self.landmarks, self.form.age))

    @cached_property
    def lid_margin(self) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Closeness to the rim of the upper lid (with its lashes) and of the lower lid."""
        folded = self.points.copy()
        folded[:, 0] = np.abs(folded[:, 0])
        d = folded - self.landmarks.eye
        gap = np.sqrt((d * d).sum(axis=1)) - self.landmarks.eye_radius
        near = smoothstep(0.0031, 0.0009, gap) * smoothstep(0.0, 0.004, d[:, 2])
        upper = smoothstep(-0.002, 0.002, d[:, 1] + 0.12 * np.abs(d[:, 0]))
        return near * upper, near * (1.0 - upper)

    @cached_property
    def upper_lid(self) -> Float[np.ndarray, " n"]:
        """Where eye shadow goes: lid and crease, fading towards the brow."""
        m = self.landmarks
        return _bump(self.points, m.eye + np.array([0.002, 0.0085, 0.014]), [0.0185, 0.0075, 0.02])

    @cached_property
    def socket(self) -> Float[np.ndarray, " n"]:
        """Ring around the eye."""
        m = self.landmarks
        return np.clip(
            1.35 * _bump(self.points, m.eye + np.array([0.0, -0.002, 0.012]), [0.0215, 0.0165, 0.03]), 0, 1
        )

    @cached_property
    def under_eye(self) -> Float[np.ndarray, " n"]:
        """The thin skin below the eye."""
        m = self.landmarks
        return _bump(self.points, m.eye + np.array([-0.004, -0.0145, 0.014]), [0.015, 0.0065, 0.02])

    @cached_property
    def cheekbone(self) -> Float[np.ndarray, " n"]:
        """Where rouge goes."""
        m = self.landmarks
        p = self.points
        tilted = np.stack([np.abs(p[:, 0]), p[:, 1] - 0.45 * (np.abs(p[:, 0]) - 0.042), p[:, 2]], axis=1)
        return _bump(tilted, [0.046, m.eye[1] - 0.033, 0.03], [0.017, 0.0105, 0.04])

    @cached_property
    def cloth(self) -> Float[np.ndarray, " n"]:
        """1 below the collar."""
        return smoothstep(-0.0004, 0.0008, collar_distance(self.points))

    @cached_property
    def collar_rib(self) -> Float[np.ndarray, " n"]:
        """Position inside the collar's rib: 1 on the rib, 0 below."""
        return smoothstep(0.011, 0.009, collar_distance(self.points))

    @cached_property
    def weave(self) -> Float[np.ndarray, " n"]:
        """Folds and weave of the cloth."""
        return 0.7 * fbm(self.points, 38.0, 2, seed=51) + 0.5 * fbm(
            self.points, 600.0, 2, seed=52, footprint=self.footprint
        )

    @cached_property
    def crease(self) -> Float[np.ndarray, " n"]:
        """Height of the wrinkles, millimetres."""
        return self._relief(self.points)

    def _relief(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        if self.form.age <= 0:
            return wrinkle_height(points, self.landmarks)
        return self.form.age * old_skin_height(points, self.landmarks, self.footprint)

    @cached_property
    def crease_slope(self) -> Float[np.ndarray, "n 3"]:
        """Gradient of the wrinkles' height (metre per metre) on the template."""
        step = 0.0006
        height = self.crease
        columns = [
            (self._relief(self.points + step * np.eye(3)[k]) - height) * (1e-3 / step) for k in range(2)
        ]
        return np.stack([*columns, np.zeros_like(height)], axis=1)

    @cached_property
    def pore_slope(self) -> Float[np.ndarray, "n 3"]:
        """Gradient of a fine relief, for metal."""
        step = 0.0015
        base = fbm(self.points, 90.0, 2, seed=61)
        return np.stack(
            [(fbm(self.points + step * np.eye(3)[k], 90.0, 2, seed=61) - base) for k in range(3)], axis=1
        )


@dataclass(frozen=True)
class EyeSurface:
    """Fields over the eyeballs' fragments."""

    points: Float[np.ndarray, "n 3"]
    landmarks: Landmarks

    @cached_property
    def direction(self) -> Float[np.ndarray, "n 3"]:
        """From the eyeball's centre, in the eye's own frame (z = gaze)."""
        centre = np.where(self.points[:, :1] > 0, 1.0, -1.0) * [[self.landmarks.eye[0], 0, 0]] + [
            [0, *self.landmarks.eye[1:]]
        ]
        return normalize(self.points - centre)

    @cached_property
    def radius(self) -> Float[np.ndarray, " n"]:
        """Distance from the pupil's centre in iris radii."""
        limbus = np.arcsin(self.landmarks.iris_radius / self.landmarks.eye_radius)
        front = np.arctan2(np.hypot(self.direction[:, 0], self.direction[:, 1]), self.direction[:, 2])
        return front / limbus

    @cached_property
    def fibres(self) -> Float[np.ndarray, " n"]:
        """Radial pattern of the iris."""
        angle = np.arctan2(self.direction[:, 1], self.direction[:, 0])
        ring = np.stack(
            [3.0 * np.cos(angle), 3.0 * np.sin(angle), 0.6 * self.radius + np.sign(self.points[:, 0])], axis=1
        )
        return fbm(ring, 2.2, 2, seed=71)

    @cached_property
    def veins(self) -> Float[np.ndarray, " n"]:
        """Redness towards the corners."""
        return smoothstep(1.1, 2.3, self.radius) * (0.7 + 0.3 * fbm(self.points, 500.0, 2, seed=72))


@dataclass(frozen=True)
class HairSurface:
    """Fields over the locks' fragments."""

    across: Float[np.ndarray, " n"]
    along: Float[np.ndarray, " n"]
    lock: Float[np.ndarray, " n"]
    layer: Float[np.ndarray, " n"]
    footprint: float

    @cached_property
    def strands(self) -> Float[np.ndarray, " n"]:
        """Fine streaks along a lock."""
        place = np.stack([self.across * 2.3, self.along * 1.3, self.lock * 997.0], axis=1)
        return fbm(place, (1.0, 1.0, 1.0), 2, seed=81)

    @cached_property
    def tone(self) -> Float[np.ndarray, " n"]:
        """Brightness of each lock's own, about -1 to 1."""
        return 2.0 * ((self.lock * 7919.0) % 1.0) - 1.0

    @cached_property
    def open(self) -> Float[np.ndarray, " n"]:
        """How much light reaches in: little at the roots and in deep layers."""
        return np.clip(0.42 + 0.40 * self.layer + 0.28 * smoothstep(0.0, 0.5, self.along), 0.0, 1.0)


@dataclass(frozen=True)
class KnitSurface:
    """Fields over a knitted hat's fragments: `across` counts ribs, `along` is the way from the brim in metres."""

    across: Float[np.ndarray, " n"]
    along: Float[np.ndarray, " n"]
    cuff: Float[np.ndarray, " n"]
    footprint: float

    @cached_property
    def groove(self) -> Float[np.ndarray, " n"]:
        """0 on a rib, 1 between two."""
        return 0.5 - 0.5 * np.cos(2 * np.pi * self.across)

    @cached_property
    def slope(self) -> Float[np.ndarray, " n"]:
        """How much the ribs' flanks lean along the head."""
        return np.sin(2 * np.pi * self.across)

    @cached_property
    def stitches(self) -> Float[np.ndarray, " n"]:
        """Rows of slanting stitches, about -1 to 1; too fine to be seen from far away."""
        slant = np.abs((2 * self.across) % 1.0 - 0.5)
        visible = smoothstep(0.0018, 0.0006, np.array(self.footprint))
        return visible * np.sin(2 * np.pi * (self.along / 0.0042 + 0.8 * slant))

    @cached_property
    def fold(self) -> Float[np.ndarray, " n"]:
        """1 where the cuff throws its shadow on the hat."""
        return (self.cuff < 0.5) * np.exp(-np.maximum(self.along - 0.056, 0.0) / 0.006)
