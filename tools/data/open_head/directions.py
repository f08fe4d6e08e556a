"""Which MakeHuman targets make the template and its shape and expression directions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np

from tools.data.open_head.source import Targets

ANCESTRIES = ("african", "asian", "caucasian")
# Share of "old" (about 90 years) in the template; "young" is about 25: together about 35.
TEMPLATE_OLD = 0.12

# name, decreasing target(s), increasing target(s), scale. "*" stands for both sides, l and r. The scale makes
# a coefficient of 1 a face that stands out a little, like one standard deviation.
Detail = tuple[str, tuple[str, ...], tuple[str, ...], float]


def _pair(name: str, stem: str, low: str = "decr", high: str = "incr", scale: float = 0.3) -> Detail:
    return (name, (f"{stem}-{low}",), (f"{stem}-{high}",), scale)


DETAILS: tuple[Detail, ...] = (
    _pair("head_age", "head/head-age"),
    _pair("head_fat", "head/head-fat"),
    ("head_oval", (), ("head/head-oval",), 0.15),
    ("head_round", (), ("head/head-round",), 0.15),
    ("head_rectangular", (), ("head/head-rectangular",), 0.15),
    ("head_square", (), ("head/head-square",), 0.15),
    ("head_triangular", ("head/head-invertedtriangular",), ("head/head-triangular",), 0.15),
    ("head_diamond", (), ("head/head-diamond",), 0.15),
    _pair("head_depth", "head/head-scale-depth"),
    _pair("head_width", "head/head-scale-horiz"),
    _pair("head_height", "head/head-scale-vert"),
    _pair("head_back", "head/head-back-scale-depth"),
    _pair("forehead_nubian", "forehead/forehead-nubian", scale=0.15),
    _pair("forehead_height", "forehead/forehead-scale-vert"),
    _pair("forehead_temple", "forehead/forehead-temple"),
    _pair("forehead_forward", "forehead/forehead-trans", "backward", "forward"),
    _pair("brows_angle", "eyebrows/eyebrows-angle", "down", "up"),
    _pair("brows_height", "eyebrows/eyebrows-trans", "down", "up"),
    _pair("brows_forward", "eyebrows/eyebrows-trans", "backward", "forward"),
    _pair("eyes_distance", "eyes/*-eye-trans", "in", "out"),
    _pair("eyes_size", "eyes/*-eye-scale"),
    _pair("eyes_opening", "eyes/*-eye-height2"),
    _pair("eyes_bags", "eyes/*-eye-bag"),
    _pair("eyes_inner_corner", "eyes/*-eye-corner1", "down", "up"),
    _pair("eyes_outer_corner", "eyes/*-eye-corner2", "down", "up"),
    _pair("eyes_fold", "eyes/*-eye-eyefold", "down", "up"),
    _pair("eyes_epicanthus", "eyes/*-eye-epicanthus", "out", "in"),
    _pair("nose_depth", "nose/nose-scale-depth"),
    _pair("nose_width", "nose/nose-scale-horiz"),
    _pair("nose_length", "nose/nose-scale-vert"),
    _pair("nose_height", "nose/nose-trans", "down", "up"),
    _pair("nose_hump", "nose/nose-hump"),
    _pair("nose_curve", "nose/nose-curve", "concave", "convex"),
    _pair("nose_volume", "nose/nose-volume"),
    _pair("nose_point_height", "nose/nose-point", "down", "up"),
    _pair("nose_point_width", "nose/nose-point-width"),
    _pair("nose_nostrils", "nose/nose-nostrils-width"),
    _pair("nose_bridge_width", "nose/nose-width1"),
    _pair("nose_greek", "nose/nose-greek"),
    _pair("mouth_width", "mouth/mouth-scale-horiz"),
    _pair("mouth_height", "mouth/mouth-trans", "down", "up"),
    _pair("mouth_corners", "mouth/mouth-angles", "down", "up"),
    _pair("mouth_cupids_bow", "mouth/mouth-cupidsbow"),
    _pair("mouth_laugh_lines", "mouth/mouth-laugh-lines", "in", "out"),
    _pair("upper_lip_height", "mouth/mouth-upperlip-height"),
    _pair("upper_lip_volume", "mouth/mouth-upperlip-volume"),
    _pair("lower_lip_height", "mouth/mouth-lowerlip-height"),
    _pair("lower_lip_volume", "mouth/mouth-lowerlip-volume"),
    _pair("cheek_bones", "cheek/*-cheek-bones"),
    _pair("cheek_volume", "cheek/*-cheek-volume"),
    _pair("cheek_inner", "cheek/*-cheek-inner"),
    _pair("chin_prominent", "chin/chin-prominent"),
    _pair("chin_width", "chin/chin-width"),
    _pair("chin_height", "chin/chin-height"),
    _pair("chin_bones", "chin/chin-bones"),
    _pair("chin_cleft", "chin/chin-cleft"),
    _pair("jaw_drop", "chin/chin-jaw-drop"),
    _pair("ears_size", "ears/*-ear-scale"),
    _pair("ears_wing", "ears/*-ear-wing"),
    _pair("neck_width", "neck/neck-scale-horiz"),
    _pair("neck_double_chin", "neck/neck-double"),
)

ARKIT_ACTIONS = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight",
    "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip


def _macro(targets: Targets) -> Callable[..., np.ndarray]:
    """MakeHuman's macro blend: the product of the shares weighs each target (universal, and per ancestry)."""
    read = cache(lambda name: targets(f"macrodetails/{name}"))

    def blend(
        male: float = 0.5,
        old: float = TEMPLATE_OLD,
        muscle: tuple[float, float, float] = (0, 1, 0),
        weight: tuple[float, float, float] = (0, 1, 0),
        ancestry: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3),
    ) -> np.ndarray:
        out = 0.0
        grades = ("min", "average", "max")
        for (gender, g), (age, a) in product(
            (("female", 1 - male), ("male", male)), (("young", 1 - old), ("old", old))
        ):
            for (m_name, m), (w_name, w) in product(
                zip(grades, muscle, strict=True), zip(grades, weight, strict=True)
            ):
                if g * a * m * w:
                    out = out + g * a * m * w * read(
                        f"universal-{gender}-{age}-{m_name}muscle-{w_name}weight"
                    )
            for name, share in zip(ANCESTRIES, ancestry, strict=True):
                if g * a * share:
                    out = out + g * a * share * read(f"{name}-{gender}-{age}")
        return np.asarray(out)

    return blend


def _both_sides(targets: Targets, name: str) -> np.ndarray:
    if "*" not in name:
        return targets(name)
    return targets(name.replace("*", "l")) + targets(name.replace("*", "r"))


def template_and_shapes(
    targets: Targets, anchor: np.ndarray
) -> tuple[np.ndarray, list[str], list[np.ndarray]]:
    """The template's displacement from the base mesh, and the shape directions with their names (decimetres).

    The macro directions also move and scale the whole body; their mean motion at ``anchor`` is taken out.

    Args:
        targets: reader of MakeHuman's targets.
        anchor: indices of base vertices that shall stay in place on average.
    """
    blend = _macro(targets)
    template = blend()
    macros = {
        "age": 0.5 * (blend(old=1.0) - blend(old=0.0)),
        "gender_male": 0.5 * (blend(male=1.0) - blend(male=0.0)),
        "weight": 0.5 * (blend(weight=(0, 0, 1)) - blend(weight=(1, 0, 0))),
        "muscle": 0.35 * (blend(muscle=(0, 0, 1)) - blend(muscle=(1, 0, 0))),
    }
    # The weight of the body hardly shows in MakeHuman's faces: cheeks and chin come from the details.
    for stem, share in (("head/head-fat", 0.4), ("neck/neck-double", 0.3)):
        macros["weight"] = macros["weight"] + 0.5 * share * (
            targets(f"{stem}-incr") - targets(f"{stem}-decr")
        )
    for i, name in enumerate(ANCESTRIES):
        macros[name] = 0.6 * (blend(ancestry=tuple(np.eye(3)[i])) - template)
    names, fields = list(macros), [f - f[anchor].mean(0) for f in macros.values()]
    for name, low, high, scale in DETAILS:
        field = sum(_both_sides(targets, n) for n in high) - sum(_both_sides(targets, n) for n in low)
        names.append(name)
        fields.append(np.asarray(scale * field / (2 if low and high else 1)))
    return template, names, fields
