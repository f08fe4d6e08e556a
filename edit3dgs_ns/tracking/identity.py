"""Whether a video shows one person throughout, by small thumbnails of the head in every frame.

The colours of skin, hair and what surrounds them hardly change from frame to frame, whatever the face does; those of another
person do. On real clips, thumbnails of one person differ by at most 4 levels of 255 from one frame to the next and by 11 seconds
later, and those of two people by 28 and more. Frames after a gap or a jump are compared with those before it in the most similar
poses, and only where both lie inside the frame: a head that leaves it has less hair around it.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

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
LEAST_COMMON = 0.5
"""Share of a thumbnail that has to lie inside the frame in both images to tell anything."""
_FOREHEAD, _CHIN = 10, 152
"""Landmarks at the upper and the lower end of the face."""


def head_thumbnail(
    frame: UInt8[np.ndarray, "height width 3"], face: Float[np.ndarray, "478 2"]
) -> UInt8[np.ndarray, "24 24 3"]:
    """The head in a frame, in a square that moves and scales with the face."""
    height, width = frame.shape[:2]
    x, y = _square(face)
    # Beyond the frame its edge is repeated: that is not compared, but blurred into what is.
    part = frame[np.ix_(np.clip(y, 0, height - 1), np.clip(x, 0, width - 1))]
    small = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 1.0)


def inside_frame(
    landmarks: Float[np.ndarray, "T 478 2"], found: Bool[np.ndarray, " T"], width: int, height: int
) -> Bool[np.ndarray, "T 24 24"]:
    """Which pixels of the thumbnails show the frame, rather than its edge repeated; False in frames without a face."""
    inside = np.zeros((len(landmarks), SIDE, SIDE), bool)
    for t in np.flatnonzero(found):
        x, y = _square(landmarks[t])
        at = np.rint(np.linspace(0, len(x) - 1, SIDE)).astype(int)
        inside[t] = ((y >= 0) & (y < height))[at][:, None] & ((x >= 0) & (x < width))[at]
    return inside


def _square(face: Float[np.ndarray, "478 2"]) -> Int[np.ndarray, "2 side"]:
    """Columns and rows of the frame that a thumbnail shows."""
    side = max(2, round(REACH * float(np.linalg.norm(face[_FOREHEAD] - face[_CHIN]))))
    return np.round(face.mean(0)[:, None] - side / 2).astype(int) + np.arange(side)


def changes_of_person(
    thumbnails: UInt8[np.ndarray, "T 24 24 3"],
    found: Bool[np.ndarray, " T"],
    inside: Bool[np.ndarray, "T 24 24"],
) -> list[int]:
    """Frames after a gap or a jump from which on the head looks unlike the one before.

    Args:
        thumbnails: of all frames.
        found: which of them show a face.
        inside: which of their pixels show the frame.
    """
    shown = np.flatnonzero(found)
    heads, inside = thumbnails[shown].astype(np.float32), inside[shown]
    difference = _differences(heads[:-1], inside[:-1], heads[1:], inside[1:])
    jumps = (difference > OTHER_PERSON) & (difference > JUMP * np.median(difference))
    starts = 1 + np.flatnonzero(jumps | (np.diff(shown) > 1))
    shots = [(heads[part], inside[part]) for part in np.split(np.arange(len(shown)), starts)]
    pairs = zip(starts, shots, shots[1:], strict=False)
    return [int(shown[start]) for start, before, after in pairs if _difference(before, after) > OTHER_PERSON]


def _difference(
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
) -> float:
    """Between the two most similar thumbnails of two shots: a head that turned meanwhile is no other person."""
    (some, some_in), (others, others_in) = (
        tuple(values[:: -(-len(values) // MOST_COMPARED)] for values in shot) for shot in (before, after)
    )
    return min(
        float(_differences(head[None], seen[None], others, others_in).min())
        for head, seen in zip(some, some_in, strict=True)
    )


def _differences(
    a: Float[np.ndarray, "N 24 24 3"],
    a_inside: Bool[np.ndarray, "N 24 24"],
    b: Float[np.ndarray, "N 24 24 3"],
    b_inside: Bool[np.ndarray, "N 24 24"],
) -> Float[np.ndarray, " N"]:
    """Mean difference of thumbnails where both are inside their frame; 0 where that is too little."""
    common = a_inside & b_inside
    total = (np.abs(a - b).mean(3) * common).sum((1, 2))
    count = common.sum((1, 2))
    return np.where(count < LEAST_COMMON * SIDE**2, 0, total / np.maximum(count, 1))
