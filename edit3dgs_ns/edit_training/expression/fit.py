"""Fits the offset of expression that turns the renders of an unedited avatar into what edited views show.

An edited view E is compared with O + R(o) - R(0): O is the same view before the edit, R(o) the unedited avatar's render under an
offset o. What the avatar does not reproduce of O drops out. Colours are no expression: images are compared after their local mean
and contrast were taken out. Gauss-Newton, with a derivative for each facial action by rendering it; amounts are bounded, and kept
small (in millimetres that they move the face) where the views do not say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.optimize import lsq_linear
from torch import Tensor

from edit3dgs_ns.edit_training.expression.directions import Directions
from edit3dgs_ns.edit_training.expression.windows import Window
from edit3dgs_ns.flame.expression_offset import ExpressionOffset
from edit3dgs_ns.flame.model import FlamePose

if TYPE_CHECKING:
    from edit3dgs_ns.training.datamanager import AvatarDatamanager
    from edit3dgs_ns.training.model import RiggedSplatfactoModel

_LEVELS = (0.12, 0.08, 0.04, 0.04, 0.0, 0.0)
"""Blur of the images in each iteration, as a share of a window's side: derivatives hold as far as what moves overlaps itself."""
_STEP = 0.4
"""Amount by which each direction is tried, and changes at most in an iteration."""
_START, _MOST_STARTS, _WORTH = 0.8, 6, 0.97
"""The start: largest amount of one direction, how many directions, and the cost that one must reach, as a share of that before."""
_PROMISING = 0.3
"""Share of the difference that a start explains where an edit changes the expression."""
_REACH = 0.2
"""Side of the squares whose mean and contrast are taken out, as a share of a window's."""
_CONTRAST = 0.03
"""Contrast (standard deviation) below which a patch counts less."""
_PRIOR = 4.0
"""Millimetres that an amount may well move the face: the deviation of the prior."""
_UNEVEN = 1.0
"""Millimetres by which the left side may well move more than the right."""
_ALONE = 0.1
"""Share of it for steps up and steps down alone."""
_NOISE = 0.5
"""Deviation of a pixel, in contrasts, that no expression explains."""
_INDEPENDENT = 16.0
"""Pixels that err together."""


@dataclass(frozen=True)
class Linearised:
    """What each timestep's windows say about changes x of the amounts: |residual - J x|^2, as its normal equations.

    Attributes:
        normal: J^T J.
        gradient: J^T residual.
        energy: |residual|^2.
    """

    normal: Float[np.ndarray, "timesteps C C"]
    gradient: Float[np.ndarray, "timesteps C"]
    energy: Float[np.ndarray, " timesteps"]


class ExpressionFit:
    """The fit to some edited views.

    Args:
        unedited: the avatar before the edit.
        datamanager: gives the views and their edits.
        windows: what is compared.
        directions: what may change.
        face: vertices whose displacement the prior is about.
    """

    def __init__(
        self,
        unedited: RiggedSplatfactoModel,
        datamanager: AvatarDatamanager,
        windows: Sequence[Window],
        directions: Directions,
        face: Tensor,
    ):
        self._model, self._directions = unedited, directions
        self._before = unedited.head.offset
        groups: dict[int, list[Window]] = {}
        for window in windows:
            groups.setdefault(window.timestep, []).append(window)
        self._groups = list(groups.values())
        device = unedited.device
        self._originals = [
            torch.stack([w.piece(datamanager.original_image(w.view).to(device)) for w in group])
            for group in self._groups
        ]
        self._edited = [
            torch.stack([w.piece(datamanager.train_image(w.view).to(device)) for w in group])
            for group in self._groups
        ]
        self._targets: dict[tuple[int, float], Tensor] = {}
        self._weights = [torch.stack([w.weight for w in group]).to(device) for group in self._groups]
        moved = directions.displacement[:, face]
        reach = moved.square().mean(dim=1).sqrt().double().numpy()
        self._alone = (reach / _PRIOR) ** 2
        self._prior = np.diag(self._alone)
        for sides in directions.together():
            if sides.sum() == 2:
                apart = np.where(np.cumsum(sides) == 1, sides, -sides) * reach / _UNEVEN
                self._prior += np.outer(apart, apart)
        nothing = np.zeros(len(directions))
        self._at_rest = [self._render(t, nothing) for t in range(len(self._groups))]

    @property
    def num_timesteps(self) -> int:
        """Timesteps that are compared."""
        return len(self._groups)

    def solve(self, only_if_promising: bool = False) -> Float[np.ndarray, " K"] | None:
        """The amounts that explain the edited views best.

        Args:
            only_if_promising: give up where no start explains a part of the difference: an edit of colours costs no more.
        """
        amounts = self._start()
        if only_if_promising and self.explained(amounts, _LEVELS[0]) < _PROMISING:
            return None
        for blur in _LEVELS:
            amounts = self._improved(amounts, self.linearised(amounts, blur), blur)
        return amounts

    def explained_elsewhere(self, amounts: Float[np.ndarray, " K"]) -> float:
        """Share of the difference at each timestep that the fit to all others explains: by an offset that is one for all.

        From the fit to all, the fit without one timestep is one step away (the jackknife's usual approximation).
        """
        left, whole = 0.0, 0.0
        system = self.linearised(amounts, _LEVELS[-1])
        for t in range(self.num_timesteps):
            others = np.arange(self.num_timesteps) != t
            elsewhere = amounts + self._changes(system, amounts, others)
            # Sharp: seen from afar, a beard is an open mouth.
            left += self._energy_at(t, elsewhere, 0.0)
            whole += self._energy_at(t, np.zeros_like(amounts), 0.0)
        return 1 - left / whole

    def explained(self, amounts: Float[np.ndarray, " K"], blur: float = 0.0) -> float:
        """Share of the difference in all windows that is gone under an offset."""
        nothing = np.zeros_like(amounts)
        return 1 - self._energy(amounts, blur) / self._energy(nothing, blur)

    @torch.no_grad()
    def linearised(self, amounts: Float[np.ndarray, " K"], blur: float) -> Linearised:
        """Derivatives at an offset, by trying each direction up and down."""
        count = len(amounts)
        normal = np.zeros((self.num_timesteps, 2 * count, 2 * count))
        gradient = np.zeros((self.num_timesteps, 2 * count))
        energy = np.zeros(self.num_timesteps)
        for t, weight in enumerate(self._weights):
            base = self._seen(t, amounts, blur)
            residual = (weight * (self._wanted(t, blur) - base)).flatten()
            columns = torch.zeros(2 * count, residual.numel(), device=residual.device)
            for column in range(2 * count):
                tried = self._tried(amounts, column)
                length = float(np.abs(tried - amounts).sum())
                if length > 0 and self._moves(t, amounts, tried):
                    columns[column] = (weight * (self._seen(t, tried, blur) - base)).flatten() / length
            normal[t] = (columns @ columns.T).double().cpu().numpy()
            gradient[t] = (columns @ residual).double().cpu().numpy()
            energy[t] = float(residual.square().sum())
        return Linearised(normal, gradient, energy)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _improved(
        self, amounts: Float[np.ndarray, " K"], system: Linearised, blur: float
    ) -> Float[np.ndarray, " K"]:
        """One step, halved until it does not make the difference larger."""
        changes = self._changes(system, amounts, np.ones(self.num_timesteps, bool))
        before = self._cost(amounts, system.energy.sum())
        for share in (1.0, 0.5, 0.25):
            tried = amounts + share * changes
            if self._cost(tried, self._energy(tried, blur)) < before:
                return tried
        return amounts

    def _changes(
        self, system: Linearised, amounts: Float[np.ndarray, " K"], used: np.ndarray
    ) -> Float[np.ndarray, " K"]:
        """Bounded least squares, of steps up and steps down apart from each other: none of them is negative."""
        variance = _NOISE**2 * _INDEPENDENT
        signs = np.concatenate([np.eye(len(amounts)), -np.eye(len(amounts))], axis=1)
        # A little for each of them, too: up and down at once is nothing.
        alone = np.diag(np.tile(self._alone, 2) * _ALONE + 1e-6)
        matrix = system.normal[used].sum(axis=0) / variance + signs.T @ self._prior @ signs + alone
        vector = system.gradient[used].sum(axis=0) / variance - signs.T @ self._prior @ amounts
        root = np.linalg.cholesky(matrix)
        d = self._directions
        high = np.clip(np.concatenate([d.high - amounts, amounts - d.low]), 1e-9, _STEP)
        found = lsq_linear(root.T, np.linalg.solve(root, vector), bounds=(np.zeros(len(high)), high))
        return np.asarray(signs @ found.x)

    def _cost(self, amounts: Float[np.ndarray, " K"], energy: float) -> float:
        return energy / (_NOISE**2 * _INDEPENDENT) + float(amounts @ self._prior @ amounts)

    def _energy(self, amounts: Float[np.ndarray, " K"], blur: float) -> float:
        return sum(self._energy_at(t, amounts, blur) for t in range(self.num_timesteps))

    def _energy_at(self, t: int, amounts: Float[np.ndarray, " K"], blur: float) -> float:
        return self._distance(t, self._originals[t] + self._change(t, amounts), blur)

    @torch.no_grad()
    def _distance(self, t: int, images: Float[Tensor, "windows side side"], blur: float) -> float:
        """Energy of what images miss of the edited ones."""
        missing = self._wanted(t, blur) - _flattened(images, blur)
        return float((self._weights[t] * missing).square().sum())

    def _wanted(self, t: int, blur: float) -> Float[Tensor, "windows side side"]:
        """The edited images of a timestep without local mean and contrast."""
        if (t, blur) not in self._targets:
            self._targets[t, blur] = _flattened(self._edited[t], blur)
        return self._targets[t, blur]

    def _start(self) -> Float[np.ndarray, " K"]:
        """Amounts near the answer: those that help most, one after the other, each as large as it helps.

        What each changes in the images is drawn once and added up: good enough for a start.
        """
        timesteps, nothing = range(self.num_timesteps), np.zeros(len(self._directions))
        candidates = [
            np.minimum(share * _START * unit, self._directions.high)
            for unit in self._directions.together()
            for share in (0.5, 1.0)
        ]
        changes = [[self._change(t, amounts) for t in timesteps] for amounts in candidates]
        images, amounts = list(self._originals), nothing
        best = self._cost(nothing, sum(self._distance(t, images[t], _LEVELS[0]) for t in timesteps))
        for _ in range(_MOST_STARTS):
            costs = [
                self._cost(
                    amounts + candidate,
                    sum(self._distance(t, images[t] + change[t], _LEVELS[0]) for t in timesteps),
                )
                if not (amounts[candidate != 0] != 0).any()
                else np.inf
                for candidate, change in zip(candidates, changes, strict=True)
            ]
            chosen = int(np.argmin(costs))
            if costs[chosen] > _WORTH * best:
                break
            best, amounts = costs[chosen], amounts + candidates[chosen]
            images = [image + change for image, change in zip(images, changes[chosen], strict=True)]
        energies = [self._cost(x, self._energy(x, _LEVELS[0])) for x in (nothing, amounts)]
        return amounts if energies[1] < energies[0] else nothing

    def _tried(self, amounts: Float[np.ndarray, " K"], column: int) -> Float[np.ndarray, " K"]:
        tried, (down, k) = amounts.copy(), divmod(column, len(amounts))
        d = self._directions
        tried[k] = np.clip(tried[k] + (-_STEP if down else _STEP), d.low[k], d.high[k])
        return tried

    def _seen(
        self, t: int, amounts: Float[np.ndarray, " K"], blur: float
    ) -> Float[Tensor, "windows side side"]:
        """What the original views of a timestep show under an offset, without local mean and contrast."""
        return _flattened(self._originals[t] + self._change(t, amounts), blur)

    def _change(self, t: int, amounts: Float[np.ndarray, " K"]) -> Float[Tensor, "windows side side"]:
        """What an offset changes in the unedited avatar's renders."""
        return self._render(t, amounts) - self._at_rest[t]

    def _pose(self, t: int, amounts: Float[np.ndarray, " K"]) -> FlamePose:
        """The motion's pose, with the avatar posed under its own offset and this one."""
        camera = self._groups[t][0].camera
        head = self._model.head
        pose = head.pose_at(0.0 if camera.times is None else float(camera.times[0, 0]))
        head.set_offset(self.offset(amounts))
        return pose

    def offset(self, amounts: Float[np.ndarray, " K"]) -> ExpressionOffset:
        """The avatar's own offset and this one."""
        found = self._directions.offset(amounts)
        return found if self._before is None else found.plus(self._before)

    def _moves(self, t: int, one: Float[np.ndarray, " K"], other: Float[np.ndarray, " K"]) -> bool:
        head = self._model.head
        shown = [head.under_offset(self._pose(t, amounts)) for amounts in (one, other)]
        return not (
            torch.equal(shown[0].expr, shown[1].expr) and torch.equal(shown[0].jaw_pose, shown[1].jaw_pose)
        )

    @torch.no_grad()
    def _render(self, t: int, amounts: Float[np.ndarray, " K"]) -> Float[Tensor, "windows side side"]:
        model, cameras = self._model, [window.camera for window in self._groups[t]]
        gaussians, colors = model.shown_in(self._pose(t, amounts))
        try:
            shown = [model.draw_shown(camera.to(model.device), gaussians, colors)[0] for camera in cameras]
        finally:
            model.head.set_offset(self._before)
        return torch.stack(shown).mean(dim=-1)


def _flattened(images: Float[Tensor, "windows side side"], blur: float) -> Float[Tensor, "windows side side"]:
    """Blurred images without their local mean, divided by their local contrast."""
    images = _smoothed(_smoothed(images, blur), blur)
    high = images - _smoothed(images, _REACH + blur)
    return high / (_smoothed(high.square(), _REACH + blur) + _CONTRAST**2).sqrt()


def _smoothed(images: Float[Tensor, "windows side side"], share: float) -> Float[Tensor, "windows side side"]:
    """The mean over squares whose side is a share of the images'."""
    reach = 2 * round(images.shape[-1] * share / 2) + 1
    rows = F.avg_pool2d(images[:, None], (reach, 1), 1, (reach // 2, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, reach), 1, (0, reach // 2), count_include_pad=False)[:, 0]
