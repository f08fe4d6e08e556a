"""What training does differently while edits are fitted: its loss, its rates, and what stays as it is.

What stays: the motion, the light, and on demand all Gaussians outside of the edited part. The light (how the capture's lamps change
the colour of a turning face, see `splats/relighting.py`) is one small polynomial for the whole avatar. It was learnt from all
timesteps and cameras; a batch of edits shows a few. Trained on them it would take up what the edits have in common in these poses,
and so change every other pose, where nobody has looked. An edit changes what the head is made of: the Gaussians' own colours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool
from torch.utils.hooks import RemovableHandle

from edit3dgs_ns.edit_training.masks import rig_masks
from edit3dgs_ns.edit_training.optimizers import base_rates
from edit3dgs_ns.edit_training.plan import RunPlan
from edit3dgs_ns.editing.masks.regions import parse_parts
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.splats.frozen_gaussians import faces_near, freeze_gaussians
from edit3dgs_ns.training.load_avatar import freeze
from edit3dgs_ns.training.model import MOTION_GROUPS

if TYPE_CHECKING:
    from edit3dgs_ns.edit_training.loss import EditLoss
    from edit3dgs_ns.edit_training.options import EditOptions
    from edit3dgs_ns.training.datamanager import AvatarDatamanager
    from edit3dgs_ns.training.model import RiggedSplatfactoModel
    from edit3dgs_ns.training.surface_maps import AvatarMaps

Optimizers = Mapping[str, torch.optim.Optimizer]


class EditFit:
    """The training side of one run.

    Args:
        config: of the run.
        model: the avatar.
        loss: that edits are fitted with.
        held_faces: faces of the rig whose Gaussians stay as they are; None for none.
    """

    def __init__(
        self,
        config: EditOptions,
        model: RiggedSplatfactoModel,
        loss: EditLoss,
        held_faces: Bool[np.ndarray, " faces"] | None,
    ):
        self.loss = loss
        self._config, self._model, self.held_faces = config, model, held_faces
        self._frozen = {
            *(() if config.edit_motion else MOTION_GROUPS),
            *(() if config.edit_light else ("light",)),
        }
        self._rates: dict[str, float] = {}
        self._handles: list[RemovableHandle] = []
        self._restore: Callable[[], None] | None = None
        """Undoes what `begin` has changed of the model; None before it."""

    def set_rates(self, rates: Mapping[str, float]) -> None:
        """The learning rates with which edits are fitted."""
        self._rates = dict(rates)

    def begin(self, optimizers: Optimizers) -> None:
        """To be called when the base training is over; again is harmless."""
        if self._restore is not None:
            return
        model = self._model
        self._restore = _restorer(model)
        model.use_image_loss(self.loss)
        if not self._config.edit_motion:
            freeze(list(model.head.pose.values()))
            model.config.fine_tune_motion = False  # nor is it centred any more
        model.appearance.light.requires_grad_(self._config.edit_light)
        if not self._config.edit_light:
            model.appearance.light.grad = None
        self._hold(optimizers)

    def form_changed(self, optimizers: Optimizers) -> None:
        """To be called after Gaussians were added or removed: holds by the new rows, and clears what is beside the new form."""
        self._model.follows_form = True
        self.gaussians_replaced(optimizers)

    def gaussians_replaced(self, optimizers: Optimizers) -> None:
        """To be called after rows of the Gaussians became others: holds by the new ones."""
        self._release_held()
        self._hold(optimizers)

    def end(self) -> None:
        """Leaves the model as `begin` has found it, but for what was trained; again is harmless."""
        if self._restore is not None:
            self._restore()
        self._restore = None
        self._release_held()

    def _hold(self, optimizers: Optimizers) -> None:
        model = self._model
        if self.held_faces is not None:
            held = torch.from_numpy(self.held_faces).to(model.device)[model.binding]
            self._handles = freeze_gaussians(dict(model.gauss_params.items()), optimizers, held)

    def _release_held(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def set_learning_rates(self, optimizers: Optimizers, step: int, plan: RunPlan) -> None:
        """Before every step: those of the base training, or those of the edits."""
        base = base_rates(plan.base_steps) if step < plan.base_steps else None
        for name, optimizer in optimizers.items():
            rate = (
                base[name](step) if base is not None else self._rates[name] * plan.learning_rate_factor(step)
            )
            for group in optimizer.param_groups:
                group["lr"] = 0.0 if base is None and name in self._frozen else rate


def _restorer(model: RiggedSplatfactoModel) -> Callable[[], None]:
    """Puts back the image loss, the config's flag and what is trained, as they are now."""
    loss, fine_tunes, config = model.image_loss, model.config.fine_tune_motion, model.config
    follows_form = model.follows_form
    trained = {p: p.requires_grad for p in (*model.head.pose.values(), model.appearance.light)}

    def restore() -> None:
        model.use_image_loss(loss)
        model.follows_form = follows_form
        config.fine_tune_motion = fine_tunes
        for parameter, requires_grad in trained.items():
            parameter.requires_grad_(requires_grad)

    return restore


def held_faces(
    config: EditOptions, datamanager: AvatarDatamanager, model: RiggedSplatfactoModel, maps: AvatarMaps
) -> Bool[np.ndarray, " faces"] | None:
    """Faces whose Gaussians `--pipeline.hold-outside` holds: those outside of `--pipeline.editor.only`, and not at its border.

    The masks of the images are soft there too: they let an edit reach a little beyond its part.

    Raises:
        ValueError: the rig has no such part.
    """
    if not config.hold_outside:
        return None
    try:
        region = rig_masks(datamanager, model, maps).faces(parse_parts(config.editor.only))
    except ValueError as error:
        raise UserError(
            f"--pipeline.hold-outside with --pipeline.editor.only {config.editor.only}: {error} Only of parts of the rig "
            "it is known which Gaussians belong to them."
        ) from None
    rest = model.head.canonical_vertices().detach().cpu().numpy()
    return ~faces_near(rest, model.head.faces.cpu().numpy(), region, config.hold_border)
