"""What a checkpoint of Nerfstudio lacks for a run to go on as if it had never stopped.

A checkpoint holds parameters, optimizers, schedulers and the step. Training depends on more: on the random numbers that splits
draw, on the gradients that densification gathers between two of its rounds, and, where saved Gaussians were completed (see
`one_camera`), on those that training goes on with. All of it is plain data under one key of the checkpoint, which Nerfstudio's own
commands pass over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edit3dgs_ns.errors import UserError

if TYPE_CHECKING:
    from edit3dgs_ns.training.model import RiggedSplatfactoModel

KEY = "training"
"""Of a checkpoint."""
_STATISTICS = ("grad2d", "count", "radii")
"""Of the strategy's running state: one number for each Gaussian, or None before the first."""


def training_state(
    model: RiggedSplatfactoModel, trained: Mapping[str, Tensor], is_complete: bool
) -> dict[str, Any]:
    """What is saved, as plain values and tensors.

    Args:
        model: as it is saved.
        trained: parameters of its Gaussians as training has left them.
        is_complete: the run is over, and the Gaussians are what it ends with.
    """
    params, statistics = model.gauss_params, model.strategy_state
    differing = {} if is_complete else trained
    return {
        "is_complete": is_complete,
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if model.device.type == "cuda" else [],
        "statistics": {n: statistics[n].cpu() for n in _STATISTICS if statistics.get(n) is not None},
        "gaussians": {n: value.cpu() for n, value in differing.items() if not torch.equal(value, params[n])},
    }


class ResumedTraining:
    """What a checkpoint says of the training it is of; nothing, for one of an older version.

    Args:
        state: of `training_state`; anything at all.
        where: the file, for messages.

    Raises:
        UserError: it is damaged.
    """

    def __init__(self, state: Any, where: str):
        self._where = where
        self._state: dict[str, Any] = {} if state is None else self._checked(state)

    @property
    def is_complete(self) -> bool:
        """Whether that run was over."""
        return bool(self._state.get("is_complete", False))

    def give_back(self, model: RiggedSplatfactoModel) -> None:
        """To the model, after its own part of the checkpoint was loaded.

        Raises:
            UserError: it belongs to other Gaussians.
        """
        count = model.num_points
        for name, value in self._state.get("gaussians", {}).items():
            parameter = dict(model.gauss_params.items()).get(name)
            if parameter is None or parameter.shape != value.shape:
                raise self._damaged(f"its {name} are those of other Gaussians")
            parameter.data.copy_(value)
        for name, value in self._state.get("statistics", {}).items():
            if name not in _STATISTICS or value.shape != (count,):
                raise self._damaged(f"its {name} are those of other Gaussians")
            model.strategy_state[name] = value.to(model.device)
        model.forget_shown()

    def restore_random(self) -> None:
        """To be called right before the next step: whatever happens before may draw numbers, too."""
        if "random" in self._state:
            torch.set_rng_state(self._state["random"])
        devices = self._state.get("random_cuda", [])
        if devices and len(devices) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(devices)

    def _checked(self, state: Any) -> dict[str, Any]:
        if not isinstance(state, dict):
            raise self._damaged(f"it is a {type(state).__name__}")
        for name in ("statistics", "gaussians"):
            table = state.get(name, {})
            if not isinstance(table, dict) or not all(isinstance(v, Tensor) for v in table.values()):
                raise self._damaged(f"its {name} are no tensors")
            if not all(bool(torch.isfinite(v).all()) for v in table.values()):
                raise self._damaged(f"its {name} are not finite")
        numbers = [state.get("random", torch.get_rng_state()), *state.get("random_cuda", [])]
        if not all(isinstance(value, Tensor) and value.dtype == torch.uint8 for value in numbers):
            raise self._damaged("its random numbers cannot be gone on with")
        return state

    def _damaged(self, why: str) -> UserError:
        return UserError(
            f"--load-dir {self._where}: what it says of the training is damaged ({why}). Go on with an earlier checkpoint."
        )
