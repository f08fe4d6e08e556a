"""Edits that give one part of the person a named colour: "Give him green hair". Like all edits of colours they change the
Appearance only, and of it nothing but the part's colour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edit3dgs_ns.synthetic.appearance import Appearance, Color
from edit3dgs_ns.synthetic.edits import Edit
from edit3dgs_ns.synthetic.form_edits import for_each

COLORS: dict[str, Color] = {
    "black": (0.050, 0.045, 0.050),
    "brown": (0.30, 0.18, 0.10),
    "blond": (0.90, 0.74, 0.42),
    "red": (0.75, 0.06, 0.08),
    "ginger": (0.76, 0.37, 0.13),
    "grey": (0.58, 0.58, 0.59),
    "white": (0.93, 0.93, 0.93),
    "blue": (0.12, 0.25, 0.80),
    "green": (0.14, 0.60, 0.20),
    "pink": (0.93, 0.45, 0.66),
    "purple": (0.46, 0.16, 0.62),
}
"""The colours by name, sRGB."""

SPELLINGS = {"grey": ("grey", "gray"), "blond": ("blond", "blonde")}
"""Of colours that are spelt in two ways."""


@dataclass(frozen=True)
class ColoredPart:
    """A part of the person whose colour can be asked for by name.

    Attributes:
        name: in captions.
        patterns: wordings, with {him}, {his} and {color} to be filled in.
        colors: names of the colours that make sense for it and are no edit of their own in `EDITS`.
        change: the appearance with the part in a colour.
    """

    name: str
    patterns: tuple[str, ...]
    colors: tuple[str, ...]
    change: Callable[[Appearance, Color], Appearance]


def _hair(a: Appearance, color: Color) -> Appearance:
    return replace(a, hair=color, hair_gray=0.0)


def _brows(a: Appearance, color: Color) -> Appearance:
    return replace(a, brows=color, brow_density=max(a.brow_density, 0.8), stubble=a.stubble or a.brows)


def _eyes(a: Appearance, color: Color) -> Appearance:
    return replace(a, iris=color)


def _lips(a: Appearance, color: Color) -> Appearance:
    return replace(a, lips=color, lipstick=max(a.lipstick, 0.8))


def _skin(a: Appearance, color: Color) -> Appearance:
    return replace(a, tint=color, tint_strength=0.92)


def _shirt(a: Appearance, color: Color) -> Appearance:
    return replace(a, cloth=color)


def _all_but(*names: str) -> tuple[str, ...]:
    return tuple(name for name in COLORS if name not in names)


PARTS: dict[str, ColoredPart] = {
    "hair": ColoredPart(
        "hair",
        (
            "Give {him} {color} hair",
            "Make {his} hair {color}",
            "Turn {his} hair {color}",
            "Dye {his} hair {color}",
            "Change {his} hair to {color}",
            "Let {him} have {color} hair",
            "Give the person {color} hair",
            "Dye the hair {color}",
        ),
        _all_but("blond"),
        _hair,
    ),
    "brows": ColoredPart(
        "eyebrows",
        (
            "Give {him} {color} eyebrows",
            "Make {his} eyebrows {color}",
            "Turn {his} eyebrows {color}",
            "Dye {his} eyebrows {color}",
            "Make {his} brows {color}",
            "Give {him} {color} brows",
            "Give the person {color} eyebrows",
        ),
        _all_but(),
        _brows,
    ),
    "eyes": ColoredPart(
        "eyes",
        (
            "Give {him} {color} eyes",
            "Make {his} eyes {color}",
            "Turn {his} eyes {color}",
            "Change {his} eyes to {color}",
            "Let {him} have {color} eyes",
            "Give the person {color} eyes",
        ),
        _all_but("blond", "ginger", "white"),
        _eyes,
    ),
    "lips": ColoredPart(
        "lips",
        (
            "Give {him} {color} lips",
            "Make {his} lips {color}",
            "Turn {his} lips {color}",
            "Paint {his} lips {color}",
            "Put {color} lipstick on {him}",
            "Give the person {color} lips",
        ),
        _all_but("blond", "ginger", "red"),
        _lips,
    ),
    "skin": ColoredPart(
        "skin",
        (
            "Turn {his} skin {color}",
            "Make {his} skin {color}",
            "Give {him} {color} skin",
            "Paint {his} skin {color}",
            "Give the person {color} skin",
        ),
        _all_but("black", "blond", "ginger", "green"),
        _skin,
    ),
    "shirt": ColoredPart(
        "shirt",
        (
            "Give {him} a {color} shirt",
            "Make {his} shirt {color}",
            "Turn {his} shirt {color}",
            "Change {his} shirt to {color}",
            "Put a {color} shirt on {him}",
            "Let {him} wear a {color} shirt",
            "Give the person a {color} shirt",
        ),
        _all_but("blond", "ginger"),
        _shirt,
    ),
}
"""Every part by the first half of its edits' keys."""


def _edit(part: ColoredPart, name: str) -> Edit:
    spellings = SPELLINGS.get(name, (name,))
    wordings = for_each(*(
        pattern.replace("{color}", color) for pattern in part.patterns for color in spellings
    ))  # fmt: skip
    article = "a " if part.name == "shirt" else ""
    return Edit(
        wordings,
        "a photo of the face of a person",
        f"a photo of the face of a person with {article}{name} {part.name}",
        lambda appearance: part.change(appearance, COLORS[name]),
    )


NAMED_COLORS: dict[str, Edit] = {
    f"{key}_{name}": _edit(part, name) for key, part in PARTS.items() for name in part.colors
}
"""Every part in every colour that makes sense for it, by a key like "hair_green"."""
