"""Edits that change what the head is made of: beards, glasses, a hat, other hair, nose and ears.

The true result is a person of another Form; colours, camera, light, expression and pose stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edit3dgs_ns.synthetic.appearance import Appearance, mix
from edit3dgs_ns.synthetic.identity import Identity

_SOURCE = "a photo of the face of a person"


@dataclass(frozen=True)
class FormEdit:
    """One edit of form.

    Attributes:
        instructions: wordings of the request; the first is the usual one.
        target_caption, source_caption: captions of the image after and before (for CLIP scores).
        form: the fields of Form that it sets.
        change: the new colours as a function of the old.
    """

    instructions: tuple[str, ...]
    target_caption: str
    form: dict[str, str | float | bool]
    change: Callable[[Appearance], Appearance] = lambda appearance: appearance
    source_caption: str = _SOURCE

    def apply(self, identity: Identity) -> Identity:
        """The person after the edit; it shares the cache of geometry with the one before."""
        form = replace(identity.form, **self.form)  # type: ignore[arg-type]
        return replace(identity, form=form, appearance=self.change(identity.appearance))


def for_each(*patterns: str) -> tuple[str, ...]:
    """The wordings with {him} and {his} filled in for a man, a woman and any person; those without stay."""
    filled = [
        pattern.format(him=him, his=his)
        for pattern in patterns
        for him, his in (("him", "his"), ("her", "her"), ("them", "their"))
    ]
    return tuple(dict.fromkeys(filled))


def _aged(a: Appearance) -> Appearance:
    """Paler and patchier skin, pale lips, white hair, yellowed eyes and teeth."""
    return replace(
        a,
        skin=mix(a.skin, (0.86, 0.72, 0.62), 0.30),
        ruddiness=min(1.0, 0.85 * a.ruddiness + 0.20),
        freckles=0.4 * a.freckles,
        wrinkles=1.0,
        age_spots=0.75,
        skin_gloss=0.7 * a.skin_gloss,
        lips=mix(a.lips, (0.68, 0.50, 0.46), 0.60),
        lipstick=0.3 * a.lipstick,
        hair=mix(a.hair, (0.80, 0.79, 0.77), 0.88),
        hair_gray=0.9,
        hair_gloss=0.5 * a.hair_gloss,
        brows=mix(a.brows, (0.66, 0.64, 0.62), 0.75),
        brow_density=0.8 * a.brow_density,
        sclera=mix(a.sclera, (0.88, 0.82, 0.75), 0.7),
        teeth=mix(a.teeth, (0.82, 0.75, 0.60), 0.7),
        beard=0.5 * a.beard,
    )


FORM_EDITS: dict[str, FormEdit] = {
    "short_beard": FormEdit(
        for_each(
            "Give {him} a short beard",
            "Make {him} wear a short beard",
            "Let {him} have a short beard",
            "Let {him} have a trimmed beard",
            "Add a short beard to {his} face",
            "Give the person a short beard",
        ),
        "a photo of the face of a person with a short beard",
        {"beard": "short"},
    ),
    "full_beard": FormEdit(
        for_each(
            "Give {him} a beard",
            "Give {him} a full beard",
            "Give {him} a long beard",
            "Make {him} wear a full beard",
            "Let {him} have a big beard",
            "Let {him} grow a full beard",
            "Give the person a full beard",
        ),
        "a photo of the face of a person with a full beard",
        {"beard": "full"},
    ),
    "glasses": FormEdit(
        for_each(
            "Give {him} glasses",
            "Put glasses on {him}",
            "Make {him} wear glasses",
            "Let {him} wear glasses with a dark frame",
            "Add glasses to {his} face",
            "Put glasses on the person",
        ),
        "a photo of the face of a person with glasses",
        {"glasses": "clear"},
    ),
    "dark_glasses": FormEdit(
        for_each(
            "Give {him} sunglasses",
            "Put sunglasses on {him}",
            "Make {him} wear sunglasses",
            "Give {him} dark glasses",
            "Put dark glasses on {him}",
            "Let {him} wear black sunglasses",
            "Put sunglasses on the person",
        ),
        "a photo of the face of a person with sunglasses",
        {"glasses": "dark"},
    ),
    "knitted_hat": FormEdit(
        for_each(
            "Put a knitted hat on {him}",
            "Give {him} a knitted hat",
            "Make {him} wear a knitted hat",
            "Put a red hat on {him}",
            "Put a hat on {him}",
            "Let {him} wear a red woollen hat",
            "Put a beanie on {his} head",
            "Put a knitted hat on the person",
        ),
        "a photo of the face of a person with a red knitted hat",
        {"hat": True},
    ),
    "bald": FormEdit(
        for_each(
            "Make {him} bald",
            "Turn {him} bald",
            "Shave {his} head",
            "Remove {his} hair",
            "Take {his} hair away",
            "Make {him} look bald",
            "Make the person bald",
        ),
        "a photo of the face of a bald person",
        {"hair": "bald"},
    ),
    "long_hair": FormEdit(
        for_each(
            "Give {him} long hair",
            "Make {his} hair long",
            "Let {his} hair grow long",
            "Let {him} have long hair",
            "Give {him} long hair down to the shoulders",
            "Give the person long hair",
        ),
        "a photo of the face of a person with long hair",
        {"hair": "long"},
    ),
    "bigger_nose": FormEdit(
        for_each(
            "Give {him} a bigger nose",
            "Make {his} nose bigger",
            "Give {him} a big nose",
            "Let {him} have a big nose",
            "Make {his} nose large",
            "Give the person a bigger nose",
        ),
        "a photo of the face of a person with a big nose",
        {"nose": 1.0},
    ),
    "elf_ears": FormEdit(
        for_each(
            "Give {him} elf ears",
            "Give {him} pointed ears",
            "Give {him} the ears of an elf",
            "Make {his} ears pointed",
            "Turn {his} ears into elf ears",
            "Give the person elf ears",
        ),
        "a photo of the face of a person with the pointed ears of an elf",
        {"ears": 1.0},
    ),
    "aged": FormEdit(
        for_each(
            "Make {him} look eighty years old",
            "Make {him} look eighty",
            "Make {him} eighty years old",
            "Let {him} be eighty years old",
            "Show {him} at eighty",
            "Make the person look eighty years old",
        ),
        "a photo of the face of an eighty-year-old person with white hair",
        {"age": 1.0},
        _aged,
    ),
}
"""Every edit of form by its key."""
