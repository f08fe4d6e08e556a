"""Edits of expression: an offset of the facial actions that is added to whatever the motion does.

With a the motion's amount of an action, o the offset's, the action becomes clip(a + o, 0, 1); the jaw opens by a + o up to
the widest that people open it. What holds the lids apart or presses them gives way to a blink, so that eyes close as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.synthetic.canonical import CanonicalHead
from edit3dgs_ns.synthetic.form_edits import for_each
from edit3dgs_ns.synthetic.motion import JAW_LIMIT, both
from edit3dgs_ns.synthetic.posing import Frame

_LIDS = ("eyeWide", "eyeSquint", "cheekSquint")
"""Actions that move the lids: they fade while a blink closes the eye."""


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
        if names is None or not {name for name in self.actions if name != "jaw"} <= set(names):
            raise UserError(
                f"{head.assets.source}: its expressions lack the names that this edit offsets. Use the open head."
            )
        offset = np.array([self.actions.get(name, 0.0) for name in names], np.float32)
        expr = np.clip(frame.expr + offset * _give_way(names, frame.expr), 0.0, 1.0).astype(np.float32)
        jaw = frame.jaw_pose.copy()
        jaw[0] = np.clip(jaw[0] + self.actions.get("jaw", 0.0), min(jaw[0], 0.0), max(jaw[0], JAW_LIMIT))
        return replace(frame, expr=expr, jaw_pose=jaw)


def _give_way(names: tuple[str, ...], expr: Float[np.ndarray, " e"]) -> Float[np.ndarray, " e"]:
    """Share of each action's offset that a frame's blinks leave."""
    share = np.ones(len(names), np.float32)
    for k, name in enumerate(names):
        for side in ("Left", "Right"):
            if name.endswith(side) and name.removesuffix(side) in _LIDS:
                share[k] = 1.0 - np.clip(expr[names.index(f"eyeBlink{side}")], 0.0, 1.0)
    return share


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
