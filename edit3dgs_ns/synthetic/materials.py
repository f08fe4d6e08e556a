"""Surface fields + an Appearance -> albedo, highlight and normals: what each material is made of. Linear
light.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.synthetic.appearance import Appearance, mix
from edit3dgs_ns.synthetic.lighting import to_linear
from edit3dgs_ns.synthetic.noise import smoothstep
from edit3dgs_ns.synthetic.surface import EyeSurface, HairSurface, KnitSurface, SkinSurface


@dataclass
class Paint:
    """Surface properties for shading. `gloss` scales the highlight, `shininess` narrows it, `wrap` scales scattering.

    `groove` is the relief that polished metal shows instead of colour, about -1 to 1.
    """

    albedo: Float[np.ndarray, "n 3"]
    gloss: Float[np.ndarray, " n"]
    shininess: Float[np.ndarray, " n"]
    wrap: float
    groove: Float[np.ndarray, " n"]


def _blend(albedo: np.ndarray, color: np.ndarray, amount: np.ndarray) -> np.ndarray:
    return albedo + (color - albedo) * np.clip(amount, 0.0, 1.0)[:, None]


def paint_skin(s: SkinSurface, a: Appearance) -> Paint:
    """Skin with everything that is drawn on it: lips, brows, beard, make-up, roots of the hair, cloth."""
    tone = to_linear(mix(a.skin, a.tint, a.tint_strength))
    bare = 1.0 - 0.75 * a.tint_strength
    # Blood absorbs green and blue; melanin absorbs all, blue the most.
    blood = (
        a.ruddiness
        * bare
        * (s.red + 0.35 * np.clip(s.mottle, -0.5, 1.0))[:, None]
        * np.array([0.05, 0.42, 0.36])
    )
    spots = (0.9 * a.freckles * bare * s.freckles + 0.45 * a.age_spots * s.age_spots)[:, None] * np.array(
        [0.25, 0.52, 0.72]
    )
    grain = (0.055 * s.mottle + 0.05 * s.pores + 0.06 * a.age_spots * s.mottle)[:, None]
    tired = (0.10 + 0.25 * a.wrinkles) * s.under_eye[:, None] * np.array([0.8, 1.0, 0.75])
    albedo = tone * np.exp(-blood - spots - tired) * (1.0 + grain)
    if a.wrinkles > 0:
        albedo = albedo * np.exp(
            0.5 * a.wrinkles * np.minimum(s.crease, 0.25)[:, None] * np.array([0.8, 1.0, 1.05])
        )
    if a.socket_strength > 0:
        albedo = _blend(albedo, to_linear(a.socket), 0.85 * a.socket_strength * s.socket)
    if a.beard > 0:
        albedo = _blend(
            albedo, to_linear(mix(a.stubble or a.brows, (0.25, 0.24, 0.25), 0.5)), 0.55 * a.beard * s.beard
        )
    roots = s.beard_roots
    if s.form.beard != "none":
        albedo = _blend(albedo, 0.8 * _hair_color(beard_look(a), s.hair_grain, s.mottle), 0.94 * roots)
    if a.blush > 0:
        albedo = _blend(albedo, to_linear((0.86, 0.30, 0.34)), 0.62 * a.blush * s.cheekbone)
    if a.eye_shadow_strength > 0:
        albedo = _blend(albedo, to_linear(a.eye_shadow), 0.85 * a.eye_shadow_strength * s.upper_lid)
    gloss = a.skin_gloss * (0.8 + 0.5 * np.clip(s.red, 0, 1) + 0.25 * s.pores) * (1.0 - 0.85 * roots)
    shininess = np.full(len(gloss), 16.0)

    lip_color = to_linear(a.lips) * (1.0 + 0.10 * s.lip_lines[:, None] * (1 - 0.5 * a.lipstick))
    albedo = _blend(albedo, lip_color, s.lips * (0.80 + 0.18 * a.lipstick))
    gloss = gloss + s.lips * (0.35 + 0.9 * a.lipstick)
    shininess = shininess + s.lips * 30.0

    upper, lower = s.lid_margin
    albedo = _blend(albedo, to_linear((0.09, 0.06, 0.06)), np.clip(upper * (0.70 + 0.30 * a.eye_liner), 0, 1))
    albedo = _blend(albedo, to_linear((0.30, 0.15, 0.13)), lower * (0.25 + 0.65 * a.eye_liner))
    # Hairs stop light twice: on its way in and on its way out.
    albedo = _blend(albedo, to_linear(a.brows), 1.0 - (1.0 - 0.90 * a.brow_density * s.brows) ** 2)
    gloss = gloss * (1.0 - 0.8 * s.brows)

    hair = _hair_color(a, s.hair_grain, s.mottle) * 0.75
    albedo = albedo * (1.0 - 0.30 * s.hair_shadow[:, None])
    albedo = albedo + (hair - albedo) * s.hair[:, None]
    gloss = gloss * (1.0 - 0.85 * s.hair)

    cloth = to_linear(a.cloth) * (1.0 + 0.16 * s.weave[:, None]) * (1.0 - 0.22 * s.collar_rib[:, None])
    albedo = albedo + (cloth - albedo) * s.cloth[:, None]
    gloss = gloss * (1.0 - s.cloth)
    groove = (
        0.6 * s.hair * s.hair_grain
        - 0.9 * s.brows * (0.5 + s.hair_grain * 0.5)
        + 0.25 * s.cloth * s.weave
        + 0.1 * s.mottle
    )
    return Paint(np.clip(albedo, 0.0, 1.0), gloss, shininess, 1.0, groove)


def paint_cloth(s: SkinSurface, a: Appearance) -> Paint:
    """The cut face below the bust."""
    albedo = to_linear(a.cloth) * (1.0 + 0.16 * s.weave[:, None])
    zero = np.zeros(len(albedo))
    return Paint(np.clip(albedo, 0, 1), zero, zero + 16.0, 0.2, 0.25 * s.weave)


def paint_eye(s: EyeSurface, a: Appearance) -> Paint:
    """Sclera, iris with fibres and dark limbal ring, pupil."""
    albedo = np.broadcast_to(to_linear(a.sclera), (len(s.points), 3))
    albedo = albedo * np.exp(-0.38 * s.veins[:, None] * np.array([0.25, 0.9, 0.85]))
    r = s.radius
    fibres = 1.0 + 0.35 * s.fibres + 0.35 * smoothstep(0.35, 0.65, r) - 0.15
    iris = to_linear(a.iris) * fibres[:, None]
    iris = iris * (1.0 - 0.78 * smoothstep(0.74, 1.0, r))[:, None]
    albedo = _blend(albedo, iris, smoothstep(1.08, 0.94, r))
    albedo = _blend(albedo, np.full(3, 0.003), smoothstep(0.46, 0.38, r))
    return Paint(
        np.clip(albedo, 0, 1),
        np.full(len(r), 1.6),
        np.full(len(r), 240.0),
        0.35,
        1.2 * smoothstep(0.75, 0.9, r) * smoothstep(1.15, 1.0, r),
    )


def paint_teeth(points: Float[np.ndarray, "n 3"], a: Appearance, shade: Float[np.ndarray, " n"]) -> Paint:
    """Enamel, darker towards the back of the mouth."""
    albedo = to_linear(a.teeth) * shade[:, None] * np.array([1.0, 0.97, 0.92])
    return Paint(albedo, 0.8 * shade, np.full(len(shade), 50.0), 0.3, np.zeros(len(shade)))


def paint_mouth(a: Appearance, tongue: Float[np.ndarray, " n"], shade: Float[np.ndarray, " n"]) -> Paint:
    """Dark red inside of the mouth, gums, and the lighter tongue."""
    albedo = _blend(
        np.broadcast_to(to_linear((0.50, 0.20, 0.19)), (len(shade), 3)), to_linear((0.74, 0.40, 0.38)), tongue
    )
    return Paint(albedo * shade[:, None], 0.5 * shade, np.full(len(shade), 30.0), 0.4, np.zeros(len(shade)))


def _hair_color(a: Appearance, streak: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """Colour of strands with light and dark streaks; grey strands are spread over the locks."""
    color = to_linear(a.hair) * (1.0 + 0.17 * streak + 0.13 * tone)[:, None]
    if a.hair_gray > 0:
        grey = smoothstep(0.9 - 1.6 * a.hair_gray, 1.5 - 1.6 * a.hair_gray, streak + 0.6 * tone)
        color = _blend(
            color,
            to_linear((0.80, 0.80, 0.80)) * (1.0 + 0.10 * streak[:, None]),
            grey * min(1.0, 1.3 * a.hair_gray),
        )
    return np.maximum(color, 0.0)


def paint_hair(s: HairSurface, a: Appearance) -> Paint:
    """Locks of hair."""
    albedo = _hair_color(a, s.strands, s.tone)
    gloss = a.hair_gloss * (0.7 + 0.6 * s.strands)
    return Paint(
        np.clip(albedo, 0, 1),
        np.clip(gloss, 0, None),
        np.full(len(gloss), 60.0),
        0.4,
        0.8 * s.strands + 0.3 * s.tone,
    )


def beard_look(a: Appearance) -> Appearance:
    """The appearance with a beard's colour as its hair's: between hair and brows."""
    return replace(a, hair=mix(a.hair, a.brows, 0.5), hair_gloss=0.5 * a.hair_gloss)


def paint_beard(s: HairSurface, a: Appearance) -> Paint:
    """Locks of a beard."""
    return paint_hair(s, beard_look(a))


def paint_knit(s: KnitSurface, a: Appearance) -> Paint:
    """Wool: dark between the ribs and below the cuff's fold, without gloss."""
    shade = 1.0 - 0.55 * s.groove**1.5 - 0.10 * s.stitches
    albedo = to_linear(a.hat) * (shade * (1.0 - 0.45 * s.fold))[:, None]
    zero = np.zeros(len(albedo))
    return Paint(np.clip(albedo, 0, 1), zero, zero + 10.0, 0.5, 0.6 - 1.2 * s.groove)


def paint_frame(count: int, a: Appearance) -> Paint:
    """Polished plastic."""
    zero = np.zeros(count)
    return Paint(np.broadcast_to(to_linear(a.frame), (count, 3)), zero + 0.9, zero + 60.0, 0.0, zero)


def paint_lens(count: int) -> Paint:
    """Nearly black glass."""
    zero = np.zeros(count)
    return Paint(
        np.broadcast_to(np.array([0.010, 0.010, 0.012], np.float32), (count, 3)),
        zero + 1.2,
        zero + 120.0,
        0.0,
        zero,
    )
