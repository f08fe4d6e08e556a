"""What eighty years do to a head's form: slack lids, cheeks and throat, thin lips, long ears and nose, receding and thin hair."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.synthetic.canonical import CanonicalHead, hairline, receded
from edit3dgs_ns.synthetic.hair import HairMesh
from edit3dgs_ns.synthetic.noise import smoothstep

SHAPE: dict[str, float] = {
    "age": 0.9,
    "head_age": 0.8,
    "eyes_bags": 1.5,
    "eyes_opening": -0.5,
    "eyes_size": -0.3,
    "eyes_fold": 0.6,
    "brows_height": -0.25,
    "mouth_laugh_lines": 1.3,
    "upper_lip_volume": -1.1,
    "lower_lip_volume": -0.9,
    "upper_lip_height": -0.6,
    "lower_lip_height": -0.5,
    "cheek_volume": -0.6,
    "cheek_inner": -0.4,
    "nose_length": 0.4,
    "nose_volume": 0.4,
    "ears_size": 0.9,
    "neck_double_chin": 0.7,
}
"""What is added to a head's shape directions at full age, by their names."""
THINNED = 0.45
"""Share of the locks on the crown that are lost at full age."""


def age_shape(head: CanonicalHead) -> Float[np.ndarray, " s"]:
    """What full age adds to the coefficients of the shape; nothing where the head does not name its directions."""
    names = head.assets.shape_names or ()
    return np.array([SHAPE.get(name, 0.0) for name in names] or [0.0] * head.model.num_shape, np.float32)


def jowl_offset(head: CanonicalHead) -> Float[np.ndarray, "v 3"]:
    """The cheeks' flesh sunk over the jaw beside the chin, metres."""
    p = head.assets.v_template.astype(np.float64)
    x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
    mouth = head.landmarks.mouth
    jowl = np.exp(
        -(((x - 0.040) / 0.012) ** 2) - ((y - mouth[1] + 0.030) / 0.013) ** 2 - ((z - 0.020) / 0.030) ** 2
    )
    hollow = np.exp(
        -(((x - 0.050) / 0.012) ** 2) - ((y - mouth[1] - 0.008) / 0.016) ** 2 - ((z - 0.020) / 0.025) ** 2
    )
    skin = np.zeros(len(p))
    skin[head.assets.vertex_regions["skin"]] = 1.0
    amount = jowl - 0.5 * hollow
    outward = np.stack([np.sign(p[:, 0]) * 0.6, -0.75 * np.ones_like(x), 0.35 * np.ones_like(x)], axis=1)
    return 0.0048 * (skin * amount)[:, None] * outward


def receding(head: CanonicalHead, age: float) -> Float[np.ndarray, " v"]:
    """1 where the hair has gone by an age, 0 where it is left."""
    p = head.assets.v_template.astype(np.float64)
    gone = smoothstep(0.004, -0.006, receded(p, head.landmarks, age)) * smoothstep(
        -0.004, 0.004, hairline(p, head.landmarks)
    )
    skin = np.zeros(len(p))
    skin[head.assets.vertex_regions["skin"]] = 1.0
    return skin * gone


def aged_hair(hair: HairMesh, head: CanonicalHead, rest: Float[np.ndarray, "v 3"], age: float) -> HairMesh:
    """The locks that are left: none that grew before the new hairline, fewer and thinner ones on the crown."""
    from scipy.spatial import cKDTree

    count = np.unique(hair.lock).size
    rows = len(hair.lock) // max(count, 1)
    roots = hair.vertices.reshape(count, rows, 3)[:, :2].mean(axis=1)
    skin = head.assets.vertex_regions["skin"]
    place = head.assets.v_template.astype(np.float64)[skin[cKDTree(rest[skin]).query(roots)[1]]]
    lock = hair.lock.reshape(count, rows)[:, 0]
    inside = receded(place, head.landmarks, age)
    crown = smoothstep(0.03, 0.09, place[:, 1]) * smoothstep(-0.02, 0.03, inside + 0.02)
    kept = (inside > 0.002 + 0.006 * lock) & ((lock * 127.0) % 1.0 > THINNED * age * crown)
    whole = np.repeat(kept, rows)
    return replace(hair, faces=hair.faces[whole[hair.faces[:, 0]]])
