"""Edits of the skin's own shape: offsets of the template's vertices, so that the new form follows every expression."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.synthetic.canonical import CanonicalHead, hairline
from edit3dgs_ns.synthetic.noise import smoothstep

NOSE_LENGTH = 0.014
"""How much farther the tip of the bigger nose stands out, metres."""
EAR_POINT = 0.042
"""How far the elf ears' points are drawn out, metres."""


def nose_offset(head: CanonicalHead, rest: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
    """A longer, broader, rounder nose; nothing beyond the nose and its rim moves."""
    p = head.assets.v_template.astype(np.float64)
    x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
    m = head.landmarks
    front = smoothstep(0.038, 0.050, z)
    base = smoothstep(m.mouth[1] + 0.0105, m.mouth[1] + 0.020, y)
    # The bridge keeps its root between the eyes and swells towards the tip.
    down = smoothstep(m.eye[1] + 0.004, m.nose_tip[1] + 0.004, y)
    width = smoothstep(0.030, 0.011, x)
    skin = _region(head, "skin")
    amount = front * base * down * width * skin
    bulb = amount * np.exp(-(((y - m.nose_tip[1]) / 0.011) ** 2))
    offset = np.zeros_like(p)
    offset[:, 0] = 0.42 * rest[:, 0] * amount + 0.18 * rest[:, 0] * bulb
    offset[:, 1] = -0.0022 * amount
    hump = (
        np.exp(-(((y - 0.5 * (m.eye[1] + m.nose_tip[1])) / 0.011) ** 2)) * smoothstep(0.016, 0.004, x) * skin
    )
    offset[:, 2] = NOSE_LENGTH * (amount * (0.55 + 0.45 * smoothstep(0.050, 0.070, z)) + 0.16 * hump * front)
    return offset


def ear_offset(head: CanonicalHead, rest: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
    """Ears whose upper rim is drawn out to a point, up, aside and backwards."""
    p = head.assets.v_template.astype(np.float64)
    ears = p[head.assets.vertex_regions["ears"]]
    low, top = ears[:, 1].min(), ears[:, 1].max()
    height = np.clip((p[:, 1] - low) / (top - low), 0.0, 1.0)
    free = smoothstep(0.0695, 0.0745, np.abs(p[:, 0]))  # the root of the ear stays on the head
    amount = smoothstep(0.30, 1.0, height) ** 1.7 * free * _region(head, "ears")
    middle = -0.046
    offset = np.zeros_like(p)
    offset[:, 0] = np.sign(p[:, 0]) * 0.75 * EAR_POINT * amount
    offset[:, 1] = 0.85 * EAR_POINT * amount
    # Narrower towards the point, which leans backwards.
    offset[:, 2] = -0.30 * EAR_POINT * amount - 0.55 * amount * (p[:, 2] - middle)
    return _smooth(head, offset, 1)


def bare_scalp(head: CanonicalHead) -> Float[np.ndarray, " v"]:
    """1 where a bald head shows skin that hair covered."""
    p = head.assets.v_template.astype(np.float64)
    return _region(head, "skin") * smoothstep(-0.002, 0.004, hairline(p, head.landmarks))


def _region(head: CanonicalHead, name: str) -> np.ndarray:
    member = np.zeros(len(head.assets.v_template))
    member[head.assets.vertex_regions[name]] = 1.0
    return member


def _smooth(head: CanonicalHead, offset: np.ndarray, rounds: int) -> np.ndarray:
    moved = np.abs(offset).max(axis=1) > 0
    for _ in range(rounds):
        offset = np.where(moved[:, None], 0.5 * offset + 0.5 * (head.neighbours @ offset), 0.0)
    return offset
