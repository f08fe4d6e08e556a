"""Whether an edit changes the expression, and by what offset of the motion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from edit3dgs_ns.flame.expression_offset import ExpressionOffset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edit3dgs_ns.edit_training.expression.windows import Window
    from edit3dgs_ns.editing.schedule import EditSchedule
    from edit3dgs_ns.training.datamanager import AvatarDatamanager
    from edit3dgs_ns.training.model import RiggedSplatfactoModel

Mode = Literal["auto", "on", "off"]
LEAST_TIMESTEPS = 3
"""That `auto` decides from."""
_MOST_TIMESTEPS, _PER_TIMESTEP = 4, 2
_LEAST_EXPLAINED = 0.4
"""Share of the difference at each timestep that the fit to the others must explain. True edits of expression are well above,
edits of colours and form well below."""
_LEAST_MOVED = 1.0
"""Millimetres (root mean square) that lips, brows or lids must move at rest."""
_MOVED = (("lips",), ("brows",), ("eyelids", "eye_region"))
_FACE = ("lips", "brows", "eyelids", "eye_region", "face")


@dataclass(frozen=True)
class FoundExpression:
    """What edited views say of the expression."""

    offset: ExpressionOffset
    """The avatar's own and what the edit adds."""
    added: ExpressionOffset
    explained: float
    """Share of the difference at each timestep that the fit to the others explains."""
    moved: float
    """Millimetres, the largest of lips, brows and lids."""
    accepted: bool

    def record(self) -> dict[str, Any]:
        """For `edit_history.json`."""
        return {
            "accepted": self.accepted,
            "explained": round(self.explained, 3),
            "moved_mm": round(self.moved, 2),
            "offset": self.added.described(),
        }


class ExpressionFollower:
    """Fits the expression of one run's edits, once.

    Args:
        mode: `--pipeline.edit-expression`.
        datamanager: gives the views and their edits.
        schedule: of the rounds.
    """

    def __init__(self, mode: Mode, datamanager: AvatarDatamanager, schedule: EditSchedule):
        self._mode, self._datamanager = mode, datamanager
        self.decided = mode == "off" or (mode == "auto" and _planned(schedule) < LEAST_TIMESTEPS)
        """Nothing is fitted any more."""

    def is_due(self, last: bool) -> bool:
        """Whether there are enough edited views, or there will be no more."""
        return not self.decided and (last or len(self._edited()) >= LEAST_TIMESTEPS)

    def look(self, unedited: RiggedSplatfactoModel) -> FoundExpression | None:
        """Fits an offset to the views edited so far; nothing is changed. None where they show no expression at all."""
        from edit3dgs_ns.edit_training.expression.directions import Directions
        from edit3dgs_ns.edit_training.expression.fit import ExpressionFit
        from edit3dgs_ns.edit_training.expression.windows import regions_of
        from edit3dgs_ns.training.model_setup import head_assets

        self.decided = True
        regions = head_assets(self._datamanager.train_dataset.metadata).vertex_regions
        if self._mode == "auto" and len(self._edited()) < LEAST_TIMESTEPS:
            return None
        head = unedited.head
        face = regions_of(regions, _FACE) if regions else np.arange(head.flame.num_vertices)
        directions = Directions.of(head)
        fit = ExpressionFit(
            unedited, self._datamanager, self._windows(unedited, regions), directions, torch.from_numpy(face)
        )
        amounts = fit.solve(only_if_promising=self._mode == "auto")
        if amounts is None:
            return None
        own, offset = head.offset, fit.offset(amounts)
        moved = max(
            _rms(_at_rest(unedited, offset) - _at_rest(unedited, own), index)
            for names in _MOVED
            if len(index := regions_of(regions, names)) or not regions
        )
        explained = fit.explained_elsewhere(amounts) if fit.num_timesteps > 1 else fit.explained(amounts)
        accepted = self._mode == "on" or (explained >= _LEAST_EXPLAINED and moved >= _LEAST_MOVED)
        found = FoundExpression(offset, directions.offset(amounts), explained, moved, accepted)
        _tell(found)
        return found

    def _edited(self) -> dict[int, list[int]]:
        """Edited views by timestep."""
        edited = set(self._datamanager.replaced_indices())
        groups = self._datamanager.indices_by_timestep()
        return {t: views for t, group in groups.items() if (views := [v for v in group if v in edited])}

    def _windows(self, unedited: RiggedSplatfactoModel, regions: Mapping[str, np.ndarray]) -> list[Window]:
        from edit3dgs_ns.edit_training.expression.windows import windows_of

        edited = self._edited()
        timesteps = sorted(edited)
        places = np.linspace(0, len(timesteps) - 1, min(_MOST_TIMESTEPS, len(timesteps))).round().astype(int)
        chosen = {timesteps[place]: edited[timesteps[place]] for place in places}
        return windows_of(unedited, self._datamanager, regions, chosen, _PER_TIMESTEP)


def _planned(schedule: EditSchedule) -> int:
    """Timesteps that all rounds edit."""
    return len({t for number in range(schedule.due_rounds) for t in schedule.batch(number).timesteps})


def put_back(
    model: RiggedSplatfactoModel,
    unedited: RiggedSplatfactoModel,
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Gives an avatar the unedited one's Gaussians, and forgets what training has gathered of their edits."""
    model.load_state_dict(unedited.state_dict())
    for name, parameter in model.gauss_params.items():
        if name in optimizers:
            optimizers[name].state.pop(parameter, None)


@torch.no_grad()
def _at_rest(model: RiggedSplatfactoModel, offset: ExpressionOffset | None) -> Float[Tensor, "vertices 3"]:
    """The resting head under an offset."""
    from edit3dgs_ns.splats.rig import POSE_PARAMETERS

    head = model.head
    own = head.offset
    head.set_offset(offset)
    try:
        zeros = {name: torch.zeros_like(head.pose[name][:1]) for name in POSE_PARAMETERS}
        return head.vertices_of(type(head.pose_at(0.0))(**zeros))
    finally:
        head.set_offset(own)


def _rms(moved: Float[Tensor, "vertices 3"], index: np.ndarray) -> float:
    chosen = moved[torch.from_numpy(index)] if len(index) else moved
    return 1000 * float(chosen.square().sum(dim=-1).mean().sqrt())


def _tell(found: FoundExpression) -> None:
    strongest = ", ".join(
        f"{name} {amount:.2f}" for name, amount in list(found.added.described().items())[:4]
    )
    said = f"becomes an offset of the motion: {strongest}" if found.accepted else "stays as it is"
    CONSOLE.log(
        f"--pipeline.edit-expression: the expression {said} ({found.moved:.1f} mm; {found.explained:.0%} of the change "
        "is the same expression at all timesteps).",
        highlight=False,
    )
