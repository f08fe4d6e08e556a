"""The edits of colours that the synthetic capture knows the true result of, each with many wordings.

An edit changes the Appearance only: original and edited image share every hit point. An *open* edit leaves the colour
to whoever does it, as most instructions leave something: its true results are a whole family, one for every hue.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.synthetic.appearance import Appearance, Color, mix


@dataclass(frozen=True)
class Edit:
    """One edit.

    Attributes:
        instructions: wordings of the request; the first is the usual one.
        source_caption, target_caption: captions of the image before and after (for CLIP scores).
        change: the new appearance as a function of the old.
    """

    instructions: tuple[str, ...]
    source_caption: str
    target_caption: str
    change: Callable[[Appearance], Appearance]

    def apply(self, appearance: Appearance) -> Appearance:
        """The appearance after the edit."""
        return self.change(appearance)


@dataclass(frozen=True)
class OpenEdit:
    """An edit that leaves the hue open.

    Attributes:
        instructions: wordings of the request; the first is the usual one.
        source_caption, target_caption: captions of the image before and after (for CLIP scores).
        change: the new appearance as a function of the old one and a colour.
    """

    instructions: tuple[str, ...]
    source_caption: str
    target_caption: str
    change: Callable[[Appearance, Color], Appearance]

    def apply(self, appearance: Appearance, hue: float) -> Appearance:
        """The appearance after the edit in one of its colours; `hue` is in turns: 0 red, 1/3 green, 2/3 blue."""
        return self.change(appearance, hue_color(hue))


def hue_color(hue: float) -> Color:
    """A bright colour, sRGB; linear in each sixth of the turn."""
    return colorsys.hsv_to_rgb(hue % 1.0, 0.72, 0.88)


def _older(a: Appearance) -> Appearance:
    sallow = (0.84 * a.skin[0] + 0.02, 0.86 * a.skin[1] + 0.02, 0.80 * a.skin[2] + 0.02)
    return replace(
        a,
        skin=sallow,
        ruddiness=min(1.0, 0.8 * a.ruddiness + 0.15),
        wrinkles=1.0,
        age_spots=0.9,
        lips=mix(a.lips, (0.62, 0.46, 0.43), 0.55),
        lipstick=0.3 * a.lipstick,
        hair=mix(a.hair, (0.80, 0.80, 0.80), 0.9),
        hair_gray=1.0,
        brows=mix(a.brows, (0.62, 0.60, 0.58), 0.8),
        brow_density=0.75 * a.brow_density,
        sclera=mix(a.sclera, (0.88, 0.83, 0.74), 0.7),
        teeth=mix(a.teeth, (0.82, 0.75, 0.60), 0.7),
        beard=0.6 * a.beard,
    )


def _green_skin(a: Appearance) -> Appearance:
    return replace(a, tint=(0.36, 0.72, 0.28), tint_strength=0.92, lips=(0.22, 0.46, 0.18))


def _blond_hair(a: Appearance) -> Appearance:
    return replace(a, hair=(0.90, 0.74, 0.42), hair_gray=0.0)


def _red_lips(a: Appearance) -> Appearance:
    return replace(
        a,
        lips=(0.78, 0.04, 0.10),
        lipstick=1.0,
        eye_shadow=(0.45, 0.20, 0.52),
        eye_shadow_strength=0.85,
        blush=0.85,
        eye_liner=1.0,
    )


def _bronze_statue(a: Appearance) -> Appearance:
    return replace(a, metal=1.0, metal_color=(0.78, 0.52, 0.27))


def _pale_vampire(a: Appearance) -> Appearance:
    return replace(
        a,
        tint=(0.90, 0.90, 0.94),
        tint_strength=0.88,
        ruddiness=0.0,
        freckles=0.0,
        lips=(0.36, 0.03, 0.07),
        lipstick=0.7,
        socket=(0.42, 0.07, 0.12),
        socket_strength=0.95,
        eye_liner=1.0,
        hair=(0.045, 0.04, 0.05),
        hair_gray=0.0,
        brows=(0.06, 0.05, 0.06),
        iris=(0.75, 0.08, 0.06),
        beard=0.0,
        blush=0.0,
        eye_shadow_strength=0.0,
    )


EDITS: dict[str, Edit] = {
    "older": Edit(
        (
            "Make him look older",
            "Make her look older",
            "Make them look older",
            "Make the person look older",
            "make him older",
            "make her older",
            "Make him look old",
            "Turn her into an old woman",
            "Turn him into an old man",
            "Turn the person into an elderly person",
            "Give them wrinkles and grey hair",
            "Age the face by forty years",
        ),
        "a photo of the face of a person",
        "a photo of the face of an old person with wrinkles and grey hair",
        _older,
    ),
    "green_skin": Edit(
        (
            "Turn his skin green",
            "Turn her skin green",
            "Turn their skin green",
            "turn the skin green",
            "Make his skin green",
            "Make her skin green",
            "Give him green skin",
            "Give her green skin",
            "Give the person green skin",
            "Paint the face green",
        ),
        "a photo of the face of a person",
        "a photo of the face of a person with green skin",
        _green_skin,
    ),
    "blond_hair": Edit(
        (
            "Give him blond hair",
            "Give her blond hair",
            "Give them blond hair",
            "Give the person blonde hair",
            "Make his hair blond",
            "Make her hair blonde",
            "Turn his hair blond",
            "Turn her hair blonde",
            "Dye the hair blond",
            "What if they had blond hair?",
        ),
        "a photo of the face of a person",
        "a photo of the face of a person with blond hair",
        _blond_hair,
    ),
    "red_lips": Edit(
        (
            "Give her red lips",
            "Put make-up on her",
            "Give him red lips",
            "Put make-up on him",
            "Give them red lips",
            "Put makeup on the person",
            "Put red lipstick on her",
            "Make her lips red",
            "Make his lips red",
            "Make her wear make-up",
            "Give the person make-up and red lipstick",
        ),
        "a photo of the face of a person",
        "a photo of the face of a person with red lips and make-up",
        _red_lips,
    ),
    "bronze_statue": Edit(
        (
            "Turn him into a bronze statue",
            "Turn her into a bronze statue",
            "Turn them into a bronze statue",
            "Turn the person into a bronze statue",
            "Make him a bronze statue",
            "Make her a bronze statue",
            "Make him look like a bronze statue",
            "Make her look like a statue of bronze",
            "Make it a bronze bust",
            "Turn the head into bronze",
        ),
        "a photo of the face of a person",
        "a photo of a bronze statue of a person",
        _bronze_statue,
    ),
    "pale_vampire": Edit(
        (
            "Make him look like a pale vampire",
            "Make her look like a pale vampire",
            "Make them look like a pale vampire",
            "Turn him into a pale vampire",
            "Turn her into a pale vampire",
            "Turn him into a vampire",
            "Turn her into a vampire",
            "Make the person look like a vampire",
            "Make the person a pale vampire",
            "Make him a vampire",
        ),
        "a photo of the face of a person",
        "a photo of the face of a pale vampire",
        _pale_vampire,
    ),
}
"""Every edit of colours that has one result, by its key."""


def _bright_hair(a: Appearance, color: Color) -> Appearance:
    return replace(a, hair=color, hair_gray=0.0)


def _face_paint(a: Appearance, color: Color) -> Appearance:
    return replace(a, tint=color, tint_strength=0.92, lips=mix(color, (0.0, 0.0, 0.0), 0.4))


def _bright_statue(a: Appearance, color: Color) -> Appearance:
    return replace(a, metal=1.0, metal_color=color)


OPEN_EDITS: dict[str, OpenEdit] = {
    "bright_hair": OpenEdit(
        (
            "Dye his hair a bright colour",
            "Dye her hair a bright colour",
            "Dye their hair a bright colour",
            "Dye the hair a bright colour",
            "Give him hair of a bright colour",
            "Give her hair of a bright colour",
        ),
        "a photo of the face of a person",
        "a photo of the face of a person with hair dyed in a bright colour",
        _bright_hair,
    ),
    "face_paint": OpenEdit(
        (
            "Paint his face in a bright colour",
            "Paint her face in a bright colour",
            "Paint the face in a bright colour",
            "Paint his skin in a bright colour",
            "Paint her skin in a bright colour",
            "Give the person a bright skin colour",
        ),
        "a photo of the face of a person",
        "a photo of the face of a person painted in a bright colour",
        _face_paint,
    ),
    "bright_statue": OpenEdit(
        (
            "Turn him into a statue of bright metal",
            "Turn her into a statue of bright metal",
            "Turn them into a statue of bright metal",
            "Turn the head into bright metal",
            "Make him a bright metal statue",
            "Make her a bright metal statue",
        ),
        "a photo of the face of a person",
        "a photo of a brightly coloured metal statue of a person",
        _bright_statue,
    ),
}
"""Every open edit by its key."""


def edited(appearance: Appearance, edit: str, hue: float | None = None) -> Appearance:
    """The appearance after an edit.

    Args:
        edit: a key of EDITS or OPEN_EDITS.
        hue: in turns, for open edits.

    Raises:
        ValueError: there is no such edit, or an open edit has no hue.
    """
    if edit in EDITS:
        return EDITS[edit].apply(appearance)
    if edit not in OPEN_EDITS:
        raise UserError(f"{edit!r} is no edit of colours; there are {', '.join([*EDITS, *OPEN_EDITS])}.")
    if hue is None:
        raise UserError(f"the edit {edit!r} leaves the colour open: give a hue.")
    return OPEN_EDITS[edit].apply(appearance, hue)
