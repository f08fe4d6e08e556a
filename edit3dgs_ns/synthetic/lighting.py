"""Light on a surface: soft diffuse with baked visibility, highlights, and a studio to be mirrored in metal.

Everything here is linear light; `to_srgb` ends it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.synthetic.appearance import Color, Light

SKIN_WRAP = np.array([0.42, 0.20, 0.13], np.float32)
"""How far diffuse light reaches beyond the terminator in red, green, blue: a cheap stand-in for scattering
in skin.
"""


def to_linear(color: Color) -> Float[np.ndarray, " 3"]:
    """sRGB in [0, 1] to linear light (IEC 61966-2-1)."""
    c = np.asarray(color, np.float32)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(linear: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Linear light to sRGB with a soft shoulder: highlights approach 1 instead of clipping."""
    x = np.maximum(linear, 0.0)
    knee = 0.70
    x = np.where(x > knee, knee + (1.0 - knee) * (1.0 - np.exp(-(x - knee) / (1.0 - knee))), x)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055).astype(np.float32)


def normalize(v: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Unit vectors; the zero vector stays zero."""
    return v / np.maximum(np.sqrt(np.einsum("...i,...i->...", v, v))[..., None], 1e-12)


def mirrored(normal: Float[np.ndarray, "n 3"], view: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Where a mirror with this normal looks, seen along `view` (from the surface to the camera)."""
    return 2.0 * (normal * view).sum(1, keepdims=True) * normal - view


def lobe_directions() -> Float[np.ndarray, "12 3"]:
    """The vertices of an icosahedron: directions in which visibility is baked."""
    g = (1 + 5**0.5) / 2
    corners = [(0, a, b * g) for a in (-1, 1) for b in (-1, 1)]
    points = [p[i:] + p[:i] for p in corners for i in range(3)]
    return normalize(np.array(points, np.float64)).astype(np.float32)


def visibility_towards(
    lobes: Float[np.ndarray, "n 12"], direction: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, " n"]:
    """Baked visibility, interpolated to one direction (both in the frame of the head at rest)."""
    weight = np.exp(4.0 * (lobe_directions() @ direction.astype(np.float32) - 1.0))
    return lobes @ (weight / weight.sum())


def diffuse(
    normal: Float[np.ndarray, "n 3"],
    occlusion: Float[np.ndarray, "n 3"],
    visibility: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
    wrap: Float[np.ndarray, " 3"],
    light: Light,
) -> Float[np.ndarray, "n 3"]:
    """Irradiance over pi of key, fill and a sky-to-ground hemisphere.

    Args:
        occlusion: open share of the hemisphere, per channel (coloured, because light bounces in red folds).
        visibility: baked visibility towards key and fill.
        wrap: reach beyond the terminator per channel; 0 is Lambert.
    """
    total = occlusion * _sky(normal, light)
    pairs = ((light.key_direction, light.key), (light.fill_direction, light.fill))
    for (direction, color), seen in zip(pairs, visibility, strict=True):
        cosine = normal @ np.asarray(direction, np.float32)
        wrapped = np.maximum((cosine[:, None] + wrap) / (1.0 + wrap), 0.0)
        # Scattered light also softens a shadow's edge, and red reaches farther into it.
        shade = seen[:, None] ** (1.0 / (1.0 + wrap))
        total = total + wrapped * shade * np.asarray(color, np.float32)
    return total


def highlight(
    normal: Float[np.ndarray, "n 3"],
    view: Float[np.ndarray, "n 3"],
    visibility: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
    shininess: float | Float[np.ndarray, " n"],
    light: Light,
) -> Float[np.ndarray, "n 3"]:
    """Blinn-Phong highlights of key and fill (normalised: (s + 8) / 8), with Schlick's Fresnel for F0 =
    0.04.
    """
    fresnel = 0.04 + 0.96 * (1.0 - np.clip((normal * view).sum(1), 0.0, 1.0)) ** 5 * 0.35
    total = np.zeros_like(normal)
    pairs = ((light.key_direction, light.key), (light.fill_direction, light.fill))
    for (direction, color), seen in zip(pairs, visibility, strict=True):
        toward = np.asarray(direction, np.float32)
        half = normalize(view + toward)
        cosine = np.maximum((normal * half).sum(1), 0.0)
        lit = np.clip(normal @ toward * 4.0, 0.0, 1.0) * seen
        total += ((shininess + 8.0) / 8.0 * cosine**shininess * lit * fresnel)[:, None] * np.asarray(
            color, np.float32
        )
    return total


def strand_highlight(
    tangent: Float[np.ndarray, "n 3"],
    view: Float[np.ndarray, "n 3"],
    normal: Float[np.ndarray, "n 3"],
    shininess: float,
    light: Light,
) -> Float[np.ndarray, "n 3"]:
    """Kajiya and Kay's highlight along hair strands ("Rendering fur with three dimensional textures",
    1989, eq. 16).
    """
    total = np.zeros_like(tangent)
    for direction, color in ((light.key_direction, light.key), (light.fill_direction, light.fill)):
        toward = np.asarray(direction, np.float32)
        half = normalize(view + toward)
        cosine = (tangent * half).sum(1)
        sine = np.sqrt(np.maximum(1.0 - cosine * cosine, 0.0))
        lit = np.clip(0.35 + 0.65 * (normal @ toward), 0.0, 1.0)
        total += (sine**shininess * lit)[:, None] * np.asarray(color, np.float32)
    return total


def studio(direction: Float[np.ndarray, "n 3"], light: Light, roughness: float) -> Float[np.ndarray, "n 3"]:
    """The surroundings as a mirror of some roughness sees them: soft boxes at key and fill, floor, dark
    walls.
    """
    up = direction[:, 1:2]
    horizon = np.exp(-((up / (0.25 + roughness)) ** 2))
    base = np.where(up > 0, 0.55 + 0.75 * up, 0.40 + 0.15 * up) * (1.0 - 0.60 * horizon)
    total = base * np.asarray(light.sky, np.float32)
    sharp = 3.0 / max(roughness, 0.02)
    for toward, color, gain in (
        (light.key_direction, light.key, 2.6),
        (light.fill_direction, light.fill, 2.4),
    ):
        cosine = direction @ np.asarray(toward, np.float32)
        total = total + gain * np.exp(sharp * (cosine - 1.0))[:, None] * np.asarray(color, np.float32)
    return total


def _sky(normal: np.ndarray, light: Light) -> np.ndarray:
    up = 0.5 + 0.5 * normal[:, 1:2]
    return np.asarray(light.ground, np.float32) * (1.0 - up) + np.asarray(light.sky, np.float32) * up
