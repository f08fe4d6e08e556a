"""An offset of the resting expression: what an edit of expression ("make her smile") adds to whatever the motion does.

With a the motion's value of a coefficient and o the offset's, the head shows a + o, held within the limits of the coefficient or,
where the motion itself is beyond them, no farther beyond. The jaw opens by its offset up to the widest that people open it. What
holds the lids apart or presses them gives way to a blink, so that eyes close as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.model import FlamePose

JAW = "jaw"
"""Key of the jaw's opening among named actions: radians about x."""
JAW_LIMIT = 0.40
"""The widest that jaws are opened, radians."""
NAMED_LIMITS, UNNAMED_LIMITS = (0.0, 1.0), (-3.0, 3.0)
"""Of the coefficients of a head that names them (the open head's facial actions), and of one that does not (FLAME's principal
components, in standard deviations)."""
_LIDS = ("eyeWide", "eyeSquint", "cheekSquint")
"""Actions that move the lids: their offset fades while a blink closes the eye."""
_SEEN = 0.02
"""Least amount that is named; of the jaw, a fifth of it in radians."""
_BLINK = "eyeBlink"
_SIDES = ("Left", "Right")


@dataclass(frozen=True)
class ExpressionOffset:
    """Added to the expression and the jaw of every timestep."""

    expr: Float[Tensor, " E"]
    """Coefficients."""
    jaw: Float[Tensor, " 3"]
    """Axis-angle, radians; +x opens."""
    names: tuple[str, ...] | None = None
    """Of the coefficients, where they have names."""

    def __post_init__(self) -> None:
        assert self.expr.ndim == 1 and self.jaw.shape == (3,)
        assert self.names is None or len(self.names) == len(self.expr)

    @classmethod
    def of_actions(cls, actions: Mapping[str, float], names: Sequence[str]) -> ExpressionOffset:
        """An offset of named actions; "jaw" is the jaw's opening in radians.

        Raises:
            ValueError: an action has another name than those.
        """
        if unknown := [name for name in actions if name != JAW and name not in names]:
            raise UserError(f"no facial action is called {unknown[0]!r} (known: {JAW}, {', '.join(names)})")
        values = torch.tensor([actions.get(name, 0.0) for name in names])
        return cls(values, torch.tensor([actions.get(JAW, 0.0), 0.0, 0.0]), tuple(names))

    @property
    def limits(self) -> tuple[float, float]:
        """Least and largest value of a coefficient."""
        return UNNAMED_LIMITS if self.names is None else NAMED_LIMITS

    @property
    def is_zero(self) -> bool:
        """Whether it changes nothing."""
        return not bool(self.expr.any()) and not bool(self.jaw.any())

    def scaled(self, scale: float) -> ExpressionOffset:
        """This offset times a number."""
        return replace(self, expr=scale * self.expr, jaw=scale * self.jaw)

    def plus(self, other: ExpressionOffset) -> ExpressionOffset:
        """The sum of two offsets of one head."""
        return replace(self, expr=self.expr + other.expr.to(self.expr), jaw=self.jaw + other.jaw.to(self.jaw))

    def added_to(
        self, expr: Float[Tensor, "T K"], jaw: Float[Tensor, "T 3"]
    ) -> tuple[Float[Tensor, "T K"], Float[Tensor, "T 3"]]:
        """Expression and jaw of T frames under the offset; differentiable in the motion and in the offset.

        A motion with fewer coefficients than the offset has (K < E) gets those that it has.
        """
        low, high = self.limits
        given = self.expr[: expr.shape[1]]
        shown = _within(expr + given * self._share_left(expr), expr, low, high)
        opening = _within(jaw[:, :1] + self.jaw[0], jaw[:, :1], 0.0, JAW_LIMIT)
        return shown, torch.cat([opening, jaw[:, 1:] + self.jaw[1:]], dim=1)

    def posed(self, pose: FlamePose) -> FlamePose:
        """What the head shows in a pose; see `added_to`."""
        expr, jaw = self.added_to(pose.expr, pose.jaw_pose)
        return replace(pose, expr=expr, jaw_pose=jaw)

    def _share_left(self, expr: Float[Tensor, "T K"]) -> Float[Tensor, "T K"]:
        """Share of each coefficient's offset that the blinks of each frame leave."""
        share = torch.ones_like(expr)
        for name in self.names or ():
            lids, side = next(((name.removesuffix(s), s) for s in _SIDES if name.endswith(s)), ("", ""))
            if lids in _LIDS:
                assert self.names is not None
                place, blink = self.names.index(name), self.names.index(f"{_BLINK}{side}")
                if max(place, blink) < expr.shape[1]:
                    share[:, place] = 1.0 - expr[:, blink].detach().clamp(0.0, 1.0)
        return share

    def described(self) -> dict[str, float]:
        """The coefficients that can be seen, by their names or numbers, the strongest first, and the jaw."""
        strongest = self.expr.abs().argsort(descending=True).tolist()
        found = {
            self.names[k] if self.names else str(k): round(float(self.expr[k]), 4)
            for k in strongest
            if abs(float(self.expr[k])) >= _SEEN
        }
        jaw = round(float(self.jaw[0]), 4)
        return found | ({JAW: jaw} if abs(jaw) >= _SEEN / 5 else {})


def _within(shown: Tensor, own: Tensor, low: float, high: float) -> Tensor:
    """`shown` between the limits, or as far beyond them as the motion's own value is."""
    own = own.detach()
    return torch.minimum(torch.maximum(shown, own.clamp(max=low)), own.clamp(min=high))
