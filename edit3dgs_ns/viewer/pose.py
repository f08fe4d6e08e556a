"""Sliders that pose the head by hand, on top of whatever motion plays: jaw, neck, gaze, and the expressions that matter most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.flame.model import FlamePose

_EXPRESSION = "expr"
STRONGEST = 8
"""Sliders for expressions."""


@dataclass(frozen=True)
class PoseSlider:
    """One slider; 0 leaves the motion as it is."""

    key: str
    label: str
    low: float
    """Where it begins and ends: degrees for joints, units for expressions."""
    high: float
    entries: tuple[tuple[str, int], ...]
    """What it adds to: fields of FlamePose and places in their rows."""
    hint: str

    @property
    def step(self) -> float:
        """Of the slider: half a degree, or a small part of an expression."""
        return 0.05 if self.entries[0][0] == _EXPRESSION else 0.5

    def amount(self, value: float) -> float:
        """What is added to the pose: radians, or units of an expression."""
        return value if self.entries[0][0] == _EXPRESSION else math.radians(value)


_JOINTS = (
    PoseSlider("jaw", "Jaw", -5, 30, (("jaw_pose", 0),), "Opens the mouth (degrees)"),
    PoseSlider("neck_nod", "Neck: nod", -30, 30, (("neck_pose", 0),), "+ looks down (degrees)"),
    PoseSlider("neck_turn", "Neck: turn", -45, 45, (("neck_pose", 1),), "+ to the head's left (degrees)"),
    PoseSlider("neck_tilt", "Neck: tilt", -30, 30, (("neck_pose", 2),), "To a shoulder (degrees)"),
    PoseSlider("gaze_down", "Gaze: down", -25, 25, (("eyes_pose", 0), ("eyes_pose", 3)), "Degrees"),
    PoseSlider(
        "gaze_side",
        "Gaze: side",
        -35,
        35,
        (("eyes_pose", 1), ("eyes_pose", 4)),
        "+ to the head's left (degrees)",
    ),
)
"""FLAME's joints turn about x (down), y (to the head's own left) and z."""


def pose_sliders(
    expressions: Float[Tensor, "timesteps coefficients"],
    directions: Float[Tensor, "vertices 3 directions"],
    names: Sequence[str] | None,
) -> list[PoseSlider]:
    """Sliders for a head: its joints, and the expressions that move it most in a motion.

    Args:
        expressions: coefficients of the motion.
        directions: of the head model, metres per unit.
        names: of the directions, where they have names.
    """
    used = expressions.abs().max(dim=0).values
    reach = directions[..., : len(used)].norm(dim=1).max(dim=0).values
    # A direction that the motion never uses moves nothing in it; among such, the larger come first.
    order = torch.argsort(used * reach + 1e-6 * reach, descending=True)
    sliders = list(_JOINTS)
    for index in order[:STRONGEST].tolist():
        name = f"Expression {index}" if names is None else _spoken(names[index])
        span = float(math.ceil(max(float(used[index]), 1.0)))
        hint = f"Expression coefficient {index}, added to the motion's"
        sliders.append(PoseSlider(f"{_EXPRESSION}{index}", name, -span, span, ((_EXPRESSION, index),), hint))
    return sliders


def posed_by_hand(pose: FlamePose, sliders: Sequence[PoseSlider], values: Mapping[str, float]) -> FlamePose:
    """A pose of one frame with what the sliders add to it.

    Args:
        pose: of the motion.
        sliders: all that there are.
        values: where they stand, by key; one that is not named stands at 0.
    """
    changed: dict[str, Tensor] = {}
    for slider in sliders:
        value = values.get(slider.key, 0.0)
        if value == 0.0:
            continue
        for name, place in slider.entries:
            if name not in changed:
                changed[name] = getattr(pose, name).detach().clone()
            if place < changed[name].shape[1]:  # another actor's motion may have fewer coefficients
                changed[name][:, place] += slider.amount(value)
    return replace(pose, **changed) if changed else pose


def _spoken(name: str) -> str:
    """ "mouthSmileLeft" -> "mouth smile left"."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)
