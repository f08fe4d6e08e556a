"""Convergence test: whether the edits of recent rounds still change the avatar.

What is measured is the *correction* of a round: how far its edits are from the renders they started from, that is, from
what all rounds before have made of the avatar. It costs nothing (both images are at hand), and it needs no view to come
twice, which in a long capture none does.

It is sound while the noise bound shrinks. A small correction says that the editor, with noise up to the present bound,
leaves the avatar as it is. Later bounds are lower: they only let the editor change less (none of what survives the
noise). So what ends here would not have gone on. It cannot end because fitting is slow either: an avatar that lags behind
its edits is corrected much. The change of a view's edits between two visits, or of the renders between two rounds, would
both be small then.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

ROUNDS_REQUIRED = 2
"""Rounds that have to agree: one may have drawn views that show little of the edit."""
_WHITE = 0.99
"""Brighter in all channels is background."""


def corrections(
    renders: Float[np.ndarray, "views height width 3"],
    edits: Float[np.ndarray, "views height width 3"],
    keep_mask: Float[np.ndarray, "views height width"] | None = None,
) -> list[float]:
    """Mean absolute change of colour from render to edit, per view, 0 to 1, over the pixels that are edited.

    Args:
        renders: the views before the edit.
        edits: after it.
        keep_mask: 1 where a view was not to be edited.

    Only pixels count that show the head before or after: the size of the background says nothing. Views that have none
    were not changed: 0.
    """
    shown = np.minimum(renders, edits).min(axis=-1) < _WHITE
    weights = shown.astype(np.float32) * (1.0 if keep_mask is None else 1.0 - keep_mask)
    change = np.abs(edits - renders).mean(axis=-1)
    totals = weights.sum(axis=(1, 2))
    return [
        float((change[view] * weights[view]).sum() / total) if total > 0 else 0.0
        for view, total in enumerate(totals)
    ]


def has_converged(rounds: Sequence[float | None], threshold: float) -> bool:
    """Whether the last rounds' corrections are all below a threshold.

    Args:
        rounds: the mean correction of every round so far; None where it is not known.
        threshold: in the units of colours, 0 to 1; 0 for never.
    """
    last = rounds[-ROUNDS_REQUIRED:]
    return len(last) == ROUNDS_REQUIRED and all(value is not None and value < threshold for value in last)
