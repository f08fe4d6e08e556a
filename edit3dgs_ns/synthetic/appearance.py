"""How a person looks, apart from geometry: colours and parameters that the shading reads.

All colours are sRGB in [0, 1], as a painter would pick them; the shading works in linear light. An edit is
a change of this record and of nothing else, so an edited image shows the same geometry, camera and light.
"""

from __future__ import annotations

from dataclasses import dataclass

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Appearance:
    """Colours and strengths in [0, 1] unless said otherwise."""

    skin: Color = (0.87, 0.69, 0.60)
    """Mean skin colour."""
    ruddiness: float = 0.5
    """How much redder cheeks, nose, ears and chin are than the rest."""
    freckles: float = 0.15
    """Small brown spots over nose and cheeks."""
    wrinkles: float = 0.0
    """Forehead lines, crow's feet, nasolabial folds, bags under the eyes (bump and colour)."""
    age_spots: float = 0.0
    """Larger brown patches and uneven tone."""
    skin_gloss: float = 0.35
    """Strength of the skin's highlight."""
    lips: Color = (0.74, 0.42, 0.40)
    lipstick: float = 0.0
    """0 bare lips, 1 saturated glossy lipstick of the colour `lips`."""
    eye_shadow: Color = (0.45, 0.25, 0.45)
    eye_shadow_strength: float = 0.0
    blush: float = 0.0
    """Rouge on the cheekbones."""
    eye_liner: float = 0.35
    """Darkness of the lash line."""
    socket: Color = (0.35, 0.10, 0.12)
    """Colour of the dark rings around the eyes."""
    socket_strength: float = 0.0
    hair: Color = (0.22, 0.15, 0.10)
    hair_gray: float = 0.0
    """Share of grey strands in the hair."""
    hair_gloss: float = 0.6
    brows: Color = (0.20, 0.14, 0.10)
    brow_density: float = 0.8
    beard: float = 0.0
    """Shadow of a shaved beard (below 0.5) up to stubble (1)."""
    stubble: Color | None = None
    """Colour of its hairs; None: that of the brows."""
    iris: Color = (0.35, 0.24, 0.14)
    sclera: Color = (0.93, 0.91, 0.89)
    teeth: Color = (0.92, 0.89, 0.82)
    cloth: Color = (0.25, 0.30, 0.40)
    hat: Color = (0.62, 0.13, 0.15)
    """Wool of a hat, if one is worn."""
    frame: Color = (0.07, 0.065, 0.07)
    """Frames of glasses, if some are worn."""
    metal: float = 0.0
    """1 turns everything, hair and eyes too, into polished metal of the colour `metal_color`."""
    metal_color: Color = (0.80, 0.55, 0.30)
    tint: Color = (1.0, 1.0, 1.0)
    """A colour that the skin is painted with."""
    tint_strength: float = 0.0


@dataclass(frozen=True)
class Light:
    """Soft light: a large key, a fill from the other side and a sky over a ground, all white-balanced.

    Directions are unit vectors from the head to the light in world axes; strengths are irradiances in
    units of the white background's.
    """

    key_direction: tuple[float, float, float] = (-0.42, 0.50, 0.76)
    key: Color = (0.74, 0.71, 0.68)
    fill_direction: tuple[float, float, float] = (0.70, 0.12, 0.70)
    fill: Color = (0.26, 0.27, 0.29)
    sky: Color = (0.50, 0.51, 0.53)
    ground: Color = (0.30, 0.28, 0.27)


def mix(a: Color, b: Color, amount: float) -> Color:
    """Linear blend of two colours: `a` at 0, `b` at 1."""
    return (
        a[0] + (b[0] - a[0]) * amount,
        a[1] + (b[1] - a[1]) * amount,
        a[2] + (b[2] - a[2]) * amount,
    )
