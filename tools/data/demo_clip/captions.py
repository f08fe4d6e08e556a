"""What is true of a picture, in words: captions in many wordings, and which of them fit which picture.

A picture has a look (as it is, or after one of the capture's edits) and facts that no edit changes: a man or a woman, the
cut of the hair, mouth, eyes, smile. A caption names the look, and some of the facts; it is true of every picture that agrees
with all it names. A caption without an edit's look is about unedited pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool

PLAIN = "plain"
"""The look of an unedited picture."""
_FRAMES = (
    "a photo of the face of {}",
    "a photo of the face of {}",
    "a photo of {}",
    "a picture of {}",
    "a portrait of {}",
    "a render of {}",
    "the face of {}",
    "{}",
)
_SHORTER: dict[str, tuple[str, ...]] = {
    PLAIN: ("a {who}", "a young {who}"),
    "older": ("an old {who}", "an elderly {who}", "an old {who} with grey hair", "a {who} with wrinkles"),
    "green_skin": ("a {who} with green skin", "a green {who}"),
    "blond_hair": ("a {who} with blond hair", "a blond {who}", "a blonde {who}"),
    "red_lips": ("a {who} with red lips", "a {who} with make-up", "a {who} wearing make-up and red lipstick"),
    "bronze_statue": (
        "a bronze statue of a {who}",
        "a bronze bust of a {who}",
        "a statue of a {who} made of bronze",
    ),
    "pale_vampire": ("a pale vampire, a {who}", "a vampire, a {who}"),
}
"""Wordings of the looks that are known here; any other edit has its own caption, in several frames."""
_HAIR = {"short": "with short hair", "long": "with long hair", "curly": "with curly hair"}
HAIR = tuple(_HAIR)
_PHRASES: dict[str, tuple[str, str | None]] = {
    "mouth_open": ("with the mouth open", "with the mouth closed"),
    "eyes_shut": ("with the eyes closed", None),
    "smiling": ("smiling", None),
}
"""Facts that are true or false: what says so (None: nobody says that)."""


@dataclass(frozen=True)
class Facts:
    """Of a picture; or what a caption claims, None for what it does not say."""

    look: str | None = None
    male: bool | None = None
    hair: str | None = None
    mouth_open: bool | None = None
    eyes_shut: bool | None = None
    smiling: bool | None = None


@dataclass(frozen=True)
class Caption:
    """A sentence and what it claims."""

    text: str
    claims: Facts


def looks() -> tuple[str, ...]:
    """Every look, the unedited one first: the order of a scene's pictures in a shard."""
    from edit3dgs_ns.synthetic.edits import EDITS, OPEN_EDITS

    return (PLAIN, *EDITS, *OPEN_EDITS)


def agrees(claims: Facts, picture: Facts) -> bool:
    """Whether everything that is claimed is true of a picture."""
    return all(getattr(claims, field.name) in (None, getattr(picture, field.name)) for field in fields(Facts))


def truth_table(
    captions: Sequence[Caption], pictures: Sequence[Facts]
) -> Bool[np.ndarray, "pictures captions"]:
    """Which caption is true of which picture."""
    return np.array([[agrees(caption.claims, picture) for caption in captions] for picture in pictures])


def usual_caption(look: str, male: bool | None) -> Caption:
    """The capture's own caption of a look, with "man" or "woman" for "person" if that is to be said."""
    text = _official(look)
    if male is not None:
        who = "man" if male else "woman"
        text = text.replace("person", who) if "person" in text else f"{text}, a {who}"
    return Caption(text, Facts(look=look, male=male))


def draw_caption(picture: Facts, rng: np.random.Generator) -> Caption:
    """A caption that is true of a picture, in one of many wordings, saying more or less."""
    assert picture.look is not None
    male = picture.male if rng.random() < 0.7 else None
    if rng.random() < 0.4:
        caption = usual_caption(picture.look, male)
    else:
        who = {None: "person", True: "man", False: "woman"}[male]
        phrase = _pick(_wordings(picture.look), rng).format(who=who)
        caption = Caption(_pick(_FRAMES, rng).format(phrase), Facts(look=picture.look, male=male))
    said: dict[str, object] = {}
    phrases: list[str] = []
    if rng.random() < 0.3 and picture.hair is not None:
        said["hair"] = picture.hair
        phrases.append(_HAIR[picture.hair])
    for name, words in _PHRASES.items():
        value = getattr(picture, name)
        word = None if value is None else words[0 if value else 1]
        if word is not None and rng.random() < 0.25:
            said[name] = value
            phrases.append(word)
    claims = {field.name: getattr(caption.claims, field.name) for field in fields(Facts)} | said
    return Caption(", ".join([caption.text, *phrases]), Facts(**claims))  # type: ignore[arg-type]


def candidates(picture: Facts, count: int, rng: np.random.Generator) -> list[Caption]:
    """`count` different captions of which exactly the first is true: the picture's own, all other looks, and then, until there
    are enough, the same with the wrong one of man and woman (the right look first)."""
    assert picture.look is not None and picture.male is not None
    others = [look for look in looks() if look != picture.look]
    rng.shuffle(others)
    wrong = [usual_caption(look, not picture.male) for look in (picture.look, *others)]
    pool = [*(usual_caption(look, picture.male) for look in others), *wrong]
    # At least one of them tests more than the look.
    chosen = [*pool[: min(len(others), count - 2)], wrong[0]]
    chosen += [caption for caption in pool if caption not in chosen][: count - 1 - len(chosen)]
    return [usual_caption(picture.look, picture.male), *chosen]


def caption_words() -> list[str]:
    """All words that captions are made of."""
    texts = [*_FRAMES, *(text for wordings in _SHORTER.values() for text in wordings), *_HAIR.values()]
    texts += [word for words in _PHRASES.values() for word in words if word is not None]
    texts += [_official(look) for look in looks()]
    cleaned = (
        " ".join(texts)
        .replace("{who}", "man woman person")
        .replace("{}", " ")
        .replace("-", " ")
        .replace(",", " ")
    )
    return sorted(set(cleaned.lower().split()))


def _official(look: str) -> str:
    from edit3dgs_ns.synthetic.edits import EDITS, OPEN_EDITS

    if look == PLAIN:
        return next(iter(EDITS.values())).source_caption
    return (EDITS[look] if look in EDITS else OPEN_EDITS[look]).target_caption


def _wordings(look: str) -> tuple[str, ...]:
    """Of a look, with a place for who it is."""
    if look in _SHORTER:
        return _SHORTER[look]
    text = _official(look).removeprefix("a photo of ").removeprefix("the face of ")
    return (text.replace("person", "{who}") if "person" in text else text + ", a {who}",)


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
