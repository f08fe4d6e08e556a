"""Edits of expression: an offset of the facial actions that is added to whatever the motion does.

How it is added, within limits and under blinks and speech, is `flame.expression_offset`: avatars are edited by the same rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.expression_offset import JAW, ExpressionOffset
from edit3dgs_ns.synthetic.canonical import CanonicalHead
from edit3dgs_ns.synthetic.form_edits import for_each
from edit3dgs_ns.synthetic.motion import both
from edit3dgs_ns.synthetic.posing import Frame


@dataclass(frozen=True)
class ExpressionEdit:
    """One edit of expression.

    Attributes:
        instructions: wordings of the request; the first is the usual one.
        target_caption, source_caption: captions of the image after and before (for CLIP scores).
        actions: offsets of ARKit's facial actions, each in [-1, 1]; "jaw" is in radians.
    """

    instructions: tuple[str, ...]
    target_caption: str
    actions: Mapping[str, float]
    source_caption: str = "a photo of the face of a person"

    def apply(self, frame: Frame, head: CanonicalHead) -> Frame:
        """The frame under the edit.

        Raises:
            ValueError: the head names no such actions.
        """
        names = head.assets.expression_names
        if names is None or not {name for name in self.actions if name != JAW} <= set(names):
            raise UserError(
                f"{head.assets.source}: its expressions lack the names that this edit offsets. Use the open head."
            )
        offset = ExpressionOffset.of_actions(self.actions, names)
        expr, jaw = offset.added_to(*(_row(values) for values in (frame.expr, frame.jaw_pose)))
        return replace(frame, expr=expr[0].numpy(), jaw_pose=jaw[0].numpy())


def _row(values: np.ndarray) -> Float[Tensor, "1 values"]:
    return torch.from_numpy(np.asarray(values, np.float32))[None]


EXPRESSION_EDITS: dict[str, ExpressionEdit] = {
    "smile": ExpressionEdit(
        for_each(
            "Make {him} smile",
            "Let {him} smile",
            "Give {him} a smile",
            "Make {him} look happy",
            "Put a smile on {his} face",
            "Make the person smile",
        ),
        "a photo of the face of a smiling person",
        both(mouthSmile=0.90, cheekSquint=0.45, eyeSquint=0.15, mouthDimple=0.25),
    ),
    "surprised": ExpressionEdit(
        for_each(
            "Make {him} look surprised",
            "Make {him} surprised",
            "Let {him} look surprised",
            "Raise {his} brows and open {his} eyes wide",
            "Give {him} a surprised look",
            "Make the person look surprised",
        ),
        "a photo of the face of a surprised person",
        {**both(browOuterUp=0.85, eyeWide=0.8), "browInnerUp": 0.85, "mouthFunnel": 0.15, "jaw": 0.14},
    ),
    "angry": ExpressionEdit(
        for_each(
            "Make {him} look angry",
            "Make {him} angry",
            "Let {him} look angry",
            "Give {him} an angry look",
            "Make {him} frown in anger",
            "Make the person look angry",
        ),
        "a photo of the face of an angry person",
        {
            **both(browDown=0.95, eyeSquint=0.40, noseSneer=0.50, mouthPress=0.30, mouthFrown=0.35),
            "mouthShrugLower": 0.25,
        },
    ),
}
"""Every edit of expression by its key."""
