"""CLIP-S and CLIP-C: agreement of an edit with the captions, and its consistency along a camera path.

Both compare directions in CLIP's space, from an image before the edit to the one after it. All embeddings are unit
vectors, as `clip.Clip` gives them. A direction of length 0 (an edit that changed nothing) has similarity 0.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.errors import UserError

_NO_LENGTH = 1e-8


def direction_similarity(
    before: Float[np.ndarray, "frames size"],
    after: Float[np.ndarray, "frames size"],
    source_caption: Float[np.ndarray, " size"],
    target_caption: Float[np.ndarray, " size"],
) -> Float[np.ndarray, " frames"]:
    """CLIP-S of each frame: cos(E(after) - E(before), T(target) - T(source)), in [-1, 1]; higher is better.

    CLIP text-image direction similarity, introduced as a loss by Gal et al. ("StyleGAN-NADA", SIGGRAPH 2022, equation 2) and as
    a figure for edits of 3D scenes by Haque et al. ("Instruct-NeRF2NeRF", ICCV 2023, section 4). The mean over all frames is
    reported. It needs a caption of each image, not the instruction between them.

    Raises:
        ValueError: both captions have the same embedding, so that there is no direction between them.
    """
    text = np.asarray(target_caption, np.float64) - source_caption
    if np.linalg.norm(text) < _NO_LENGTH:
        raise UserError(
            "The source and the target caption mean the same to this CLIP: there is no direction from one to the other. "
            "Describe the image before the edit and the image after it."
        )
    return _cosine(np.asarray(after, np.float64) - before, np.broadcast_to(text, np.shape(after)))


def direction_consistency(
    before: Float[np.ndarray, "frames size"], after: Float[np.ndarray, "frames size"]
) -> Float[np.ndarray, " steps"]:
    """CLIP-C of each step along a camera path: cos(d_i, d_(i+1)), d_i = E(after_i) - E(before_i); higher is better.

    CLIP direction consistency, Haque et al. ("Instruct-NeRF2NeRF", ICCV 2023, section 4). Frames are those of one path in order;
    there is one step less than there are frames. The mean over all steps is reported. The farther apart in time or angle two
    frames are, the lower it is: figures compare only at the same distance.
    """
    change = np.asarray(after, np.float64) - before
    return _cosine(change[:-1], change[1:])


def _cosine(a: Float[np.ndarray, "rows size"], b: Float[np.ndarray, "rows size"]) -> np.ndarray:
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    product = (a * b).sum(axis=-1)
    return np.where(length < _NO_LENGTH**2, 0.0, product / np.maximum(length, _NO_LENGTH**2))
