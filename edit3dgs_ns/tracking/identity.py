"""Whether a video shows one person throughout, by small thumbnails of the head in every frame.

The colours of skin, hair and what surrounds them hardly change from frame to frame, whatever the face does; those of another
person do. On real clips, thumbnails of one person differ by at most 4 levels of 255 from one frame to the next and by 11 seconds
later, and those of two people by 28 and more. Frames after a gap or a jump are compared with those before it in the most similar
poses.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

SIDE = 24
"""Pixels of a thumbnail."""
REACH = 1.6
"""Side of the part of the frame that a thumbnail shows, in heights of the face: hair is in it."""
OTHER_PERSON = 16.0
"""Least mean difference, in levels of 255, of two people's thumbnails in their most similar poses."""
JUMP = 3.0
"""Multiples of the usual difference from one frame to the next that may be a cut."""
MOST_COMPARED = 60
"""Frames of each shot."""
_FOREHEAD, _CHIN = 10, 152
"""Landmarks at the upper and the lower end of the face."""


def head_thumbnail(
    frame: UInt8[np.ndarray, "height width 3"], face: Float[np.ndarray, "478 2"]
) -> UInt8[np.ndarray, "24 24 3"]:
    """The head in a frame, in a square that moves and scales with the face."""
    side = max(2, round(REACH * float(np.linalg.norm(face[_FOREHEAD] - face[_CHIN]))))
    # Beyond the frame its edge is repeated: a face that is near it is no other person.
    height, width = frame.shape[:2]
    x, y = (np.round(start - side / 2).astype(int) + np.arange(side) for start in face.mean(0))
    part = frame[np.ix_(np.clip(y, 0, height - 1), np.clip(x, 0, width - 1))]
    small = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 1.0)


def changes_of_person(thumbnails: UInt8[np.ndarray, "T 24 24 3"], found: Bool[np.ndarray, " T"]) -> list[int]:
    """Frames after a gap or a jump from which on the head looks unlike the one before."""
    shown = np.flatnonzero(found)
    heads = thumbnails[shown].astype(np.float32)
    difference = np.abs(np.diff(heads, axis=0)).mean(axis=(1, 2, 3))
    jumps = (difference > OTHER_PERSON) & (difference > JUMP * np.median(difference))
    starts = 1 + np.flatnonzero(jumps | (np.diff(shown) > 1))
    shots = np.split(heads, starts)
    pairs = zip(starts, shots, shots[1:], strict=False)
    return [int(shown[start]) for start, before, after in pairs if _difference(before, after) > OTHER_PERSON]


def _difference(before: Float[np.ndarray, "A 24 24 3"], after: Float[np.ndarray, "B 24 24 3"]) -> float:
    """Between the two most similar thumbnails of two shots: a head that turned meanwhile is no other person."""
    some, others = (shot[:: -(-len(shot) // MOST_COMPARED)] for shot in (before, after))
    return min(float(np.abs(others - head).mean(axis=(1, 2, 3)).min()) for head in some)
