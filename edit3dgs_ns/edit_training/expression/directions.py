"""Directions in which the resting expression of a head may be edited, and how far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.flame.expression_offset import JAW_LIMIT, UNNAMED_LIMITS, ExpressionOffset
from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.splats.rig import TrackedHead

_LEFT_OUT = ("eyeLook", "jawOpen", "mouthClose", "tongueOut")
"""Beginnings of the names of actions that are no resting expression: gaze, and what only belongs to an open jaw or mouth."""
_NEVER_NEGATIVE = ("eyeBlink",)
"""Less than the motion's own lids would leave eyes open in a blink. Of other actions as much is taken away as the motion has at
rest: its median."""
_STRONGEST = 20
"""Directions of a head whose expressions have no names."""
_JAW_UNIT = 0.2
"""Radians that count as one unit, like an action done in full."""
_STILL = 1e-5
"""Metres: an action that moves nothing farther is none."""


@dataclass(frozen=True)
class Directions:
    """K directions; an offset is a vector of K amounts."""

    coefficients: Float[Tensor, "K E"]
    """Expression per unit of each."""
    jaw: Float[Tensor, " K"]
    """Opening of the jaw per unit of each, radians."""
    low: Float[np.ndarray, " K"]
    high: Float[np.ndarray, " K"]
    """Limits of the amounts."""
    displacement: Float[Tensor, "K vertices"]
    """How far a unit moves each vertex of the resting head, millimetres."""
    names: tuple[str, ...] | None
    """Of the head's coefficients."""

    @classmethod
    @torch.no_grad()
    def of(cls, head: TrackedHead) -> Directions:
        """Those of a head: its named actions, or its strongest directions where they have no names; and the jaw."""
        flame = head.flame
        reach = flame.exprdirs.norm(dim=1).amax(dim=0).cpu()
        names = flame.expression_names
        if names is None:
            chosen = reach.topk(min(_STRONGEST, len(reach))).indices.sort().values.tolist()
            low, high = ([limit] * len(chosen) for limit in UNNAMED_LIMITS)
        else:
            usable = [k for k, name in enumerate(names) if not name.startswith(_LEFT_OUT)]
            chosen = [k for k in usable if reach[k] > _STILL]
            resting = head.pose["expr"].median(dim=0).values.clamp(min=0).tolist()
            low = [
                0.0 if names[k].startswith(_NEVER_NEGATIVE) or k >= len(resting) else -resting[k]
                for k in chosen
            ]
            high = [1.0] * len(chosen)
        count = len(chosen) + 1
        coefficients, jaw = torch.zeros(count, flame.num_expr), torch.zeros(count)
        coefficients[torch.arange(count - 1), torch.tensor(chosen)] = 1.0
        jaw[-1] = _JAW_UNIT
        limit = JAW_LIMIT / _JAW_UNIT
        return cls(
            coefficients,
            jaw,
            np.array([*low, -limit / 2]),
            np.array([*high, limit]),
            _displacements(head, coefficients, jaw),
            names,
        )

    def __len__(self) -> int:
        """K."""
        return len(self.jaw)

    def together(self) -> list[Float[np.ndarray, " K"]]:
        """Unit amounts of each direction; left and right of an action together."""
        named = [self._name(k) for k in range(len(self))]
        found: dict[str, np.ndarray] = {}
        for k, name in enumerate(named):
            found.setdefault(name, np.zeros(len(self)))[k] = 1.0
        return list(found.values())

    def _name(self, k: int) -> str:
        if self.names is None or not self.coefficients[k].any():
            return str(k)
        return self.names[int(self.coefficients[k].argmax())].removesuffix("Left").removesuffix("Right")

    def offset(self, amounts: Float[np.ndarray, " K"]) -> ExpressionOffset:
        """The offset of some amounts."""
        weights = torch.from_numpy(amounts).float()
        jaw = torch.zeros(3)
        jaw[0] = weights @ self.jaw
        return ExpressionOffset(weights @ self.coefficients, jaw, self.names)


def _displacements(
    head: TrackedHead, coefficients: Float[Tensor, "K E"], jaw: Float[Tensor, " K"]
) -> Float[Tensor, "K vertices"]:
    device = head.shape.device
    zeros = torch.zeros(len(jaw), 3, device=device)
    opened = torch.cat([jaw[:, None].to(device), zeros[:, :2]], dim=1)
    pose = FlamePose(coefficients.to(device), zeros, zeros, opened, torch.cat([zeros, zeros], dim=1), zeros)
    shaped = head.flame.shaped(head.shape, head.static_offset)
    return 1000 * (shaped.posed(pose) - head.canonical_vertices()).norm(dim=-1).cpu()
