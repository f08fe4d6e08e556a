"""Selects timesteps with different expressions, and describes expressions in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

_JAW_OPEN = 0.12
"""Radians of the jaw from which a mouth is called open."""
_PLAIN_WORDS = {
    "mouth smile": "smile",
    "eye blink": "eyes closed",
    "brow inner up": "brows raised",
    "brow outer up": "brows raised",
    "brow down": "frown",
    "eye squint": "squint",
    "eye wide": "eyes wide",
    "nose sneer": "nose wrinkled",
    "mouth frown": "mouth corners down",
    "mouth pucker": "lips puckered",
    "mouth stretch": "mouth wide",
    "mouth upper up": "teeth shown",
    "mouth lower down": "teeth shown",
    "cheek puff": "cheeks puffed",
}
_VISIBLE = 0.35
"""Weight from which a named action is mentioned."""


def most_different(features: Float[np.ndarray, "frames values"], count: int, first: int) -> list[int]:
    """Indices of `count` rows by farthest-point sampling, starting with row `first`.

    Returns fewer where there are fewer distinct rows.
    """
    chosen = [first]
    distance = np.linalg.norm(features - features[first], axis=1)
    while len(chosen) < count and distance.max() > 0:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return chosen


def describe(
    expr: Float[np.ndarray, " actions"],
    jaw_pose: Float[np.ndarray, " 3"],
    names: Sequence[str] | None,
    most: int = 2,
) -> str:
    """A short description of an expression, such as "mouth open, eyes closed".

    Args:
        expr: weights of the named actions.
        jaw_pose: axis-angle in radians.
        names: ARKit-style names of the actions, such as `mouthSmileLeft`; without them only the jaw counts.
        most: largest number of actions named, the strongest first.
    """
    words = ["mouth open"] if np.linalg.norm(jaw_pose) > _JAW_OPEN else []
    if names is not None:
        for index in np.argsort(-expr[: len(names)]):
            word = _plain(names[index])
            if expr[index] >= _VISIBLE and word not in words:
                words.append(word)
    return ", ".join(words[:most]) or "calm"


def _plain(name: str) -> str:
    """`eyeBlinkLeft` -> `eyes closed`; a name without plain words is spelt out: `jawForward` -> `jaw forward`."""
    name = re.sub(r"(Left|Right)$", "", name)
    spelt = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    return _PLAIN_WORDS.get(spelt, spelt)
