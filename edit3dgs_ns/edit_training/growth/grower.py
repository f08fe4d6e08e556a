"""Lets an avatar follow edits of form: adds Gaussians where edited views show something new, removes those that are gone.

What decides is what the views show, not what the prompt says: edits of colours leave the number of Gaussians alone. Views are
looked at again whenever their number has doubled, so that all looks together cost little more than the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from edit3dgs_ns.edit_training.growth.removal import gone
from edit3dgs_ns.edit_training.growth.seeds import Seeds, bare_skin, new_parts, seeds_on
from edit3dgs_ns.edit_training.growth.seen import SeenView
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.splats.appending import append_gaussians
from edit3dgs_ns.splats.binding import TriangleFrames, local_to_world
from edit3dgs_ns.splats.carriers import Carriers
from edit3dgs_ns.splats.checkpoints import write_checkpoint
from edit3dgs_ns.splats.views import viewmats_from_c2w
from edit3dgs_ns.training.frozen_copy import frozen_avatar

if TYPE_CHECKING:
    import numpy as np

    from edit3dgs_ns.training.datamanager import AvatarDatamanager
    from edit3dgs_ns.training.model import RiggedSplatfactoModel

UNEDITED_FILE = "unedited_avatar.pt"
"""In the run's folder: what the edited views are compared with, for a run that is resumed."""
_FIRST_LOOK = 6
"""Edited views, at least."""
_MOST_VIEWS = 64
_MOST_PIXELS = 256
"""Longer side that views are scaled down to: voxels are no finer."""
_OPAQUE = 0.3


@dataclass(frozen=True)
class Change:
    """What a look at the views has changed."""

    added: int
    removed: int
    gaussians: int
    """All that there are now."""

    def record(self) -> dict[str, int]:
        """For `edit_history.json`."""
        return {"added": self.added, "removed": self.removed, "gaussians": self.gaussians}


class Grower:
    """Growth and removal of one run.

    Args:
        model: the avatar that is edited.
        datamanager: gives the views and their edits.
        budget: how many Gaussians may be added in all, as a share of the unedited avatar's.
        held_faces: faces whose Gaussians stay as they are; None for none.
        folder: of the run; the unedited avatar is kept there.
        resumed: folder of the run that is resumed.
        keeps_unedited: keep the unedited avatar even without a budget, for others.
    """

    def __init__(
        self,
        model: RiggedSplatfactoModel,
        datamanager: AvatarDatamanager,
        budget: float,
        held_faces: Bool[np.ndarray, " faces"] | None,
        folder: Path,
        resumed: Path | None = None,
        keeps_unedited: bool = False,
    ):
        self._model, self._datamanager, self._budget = model, datamanager, budget
        self._allowed = None if held_faces is None else torch.from_numpy(~held_faces)
        self._folder, self._resumed, self._keeps_unedited = folder, resumed, keeps_unedited
        self._unedited: RiggedSplatfactoModel | None = None
        self._geometry: dict[int, SeenView] = {}
        self.looked_at = 0
        """Edited views at the last look."""

    def begin(self) -> None:
        """To be called before the first round edits anything; again is harmless.

        Raises:
            UserError: the run goes on, and the avatar from before its edits is gone or damaged.
        """
        if self._unedited is not None or (self._budget == 0 and not self._keeps_unedited):
            return
        path = None if self._resumed is None else self._resumed / UNEDITED_FILE
        state = _read_state(path) if path is not None and path.is_file() else None
        if state is None and self._datamanager.replaced_indices():  # the model is fitted to edits already
            raise UserError(
                f"{path or self._folder / UNEDITED_FILE} is missing: it holds the avatar before its edits, with which the edited "
                "views are compared. Copy it back from where this run was made, or edit the avatar anew, with --pipeline.avatar "
                "instead of --load-dir."
            )
        self._unedited = frozen_avatar(self._model, state)
        with written_beside(self._folder / UNEDITED_FILE) as partial:
            write_checkpoint(self._unedited.state_dict(), partial)

    @property
    def unedited(self) -> RiggedSplatfactoModel | None:
        """The avatar before the edit, once it was begun; None where nobody needs it."""
        return self._unedited

    def offset_changed(self) -> None:
        """To be called after the edited avatar got another offset of expression: views are compared under it from now on."""
        if self._unedited is not None:
            self._unedited.head.take_offset(self._model.head)
        self._geometry.clear()

    @torch.no_grad()
    def look(self, optimizers: Mapping[str, torch.optim.Optimizer], last: bool = False) -> Change | None:
        """Changes the avatar as all edited views so far ask for; None where they do not, or are too few or hardly more than before.

        Args:
            optimizers: of the avatar's Gaussians, by their names.
            last: no view will be edited after this.
        """
        edited = self._datamanager.replaced_indices()
        least = (
            0 if last else 2 * self.looked_at
        )  # the last look sees the last edits, be they of the same views
        if self._budget > 0 and last and len(edited) < _FIRST_LOOK:
            CONSOLE.log(
                f"Only {len(edited)} views are edited: with fewer than {_FIRST_LOOK}, an edit changes colours and no form.",
                highlight=False,
            )
        if self._budget == 0 or len(edited) < max(_FIRST_LOOK, least):
            return None
        self.looked_at = len(edited)
        self.begin()
        views = [self._seen(index) for index in _spread(edited, _MOST_VIEWS)]
        views = [view for view in views if view.on_white]  # a painted background has no silhouettes
        if len(views) < _FIRST_LOOK:
            return None
        before = self._model.num_points
        removed = self._remove(views, optimizers)
        added = self._grow(views, optimizers)
        if added == 0 and removed == 0:
            return None
        self._model.forget_shown()
        change = Change(self._model.num_points - before + removed, removed, self._model.num_points)
        CONSOLE.log(
            f"The edit changes the form: {change.added} Gaussians added, {removed} removed, {change.gaussians} now.",
            highlight=False,
        )
        return change

    # -- removal -----------------------------------------------------------------------------------------------------

    def _remove(self, views: list[SeenView], optimizers: Mapping[str, torch.optim.Optimizer]) -> int:
        if not any(bool(view.emptied.any()) for view in views):
            return 0
        from gsplat.strategy.ops import remove  # heavy

        model = self._model
        posed: dict[int, Tensor] = {}
        for view in views:
            if view.timestep not in posed:
                posed[view.timestep] = self._world(view.frames)
        doomed = gone(views, [posed[view.timestep] for view in views]) & self._may_change()
        if not bool(doomed.any()):
            return 0
        bare = torch.unique(model.binding[doomed])
        normals = [self._normals(view.frames) for view in views]
        skin = bare_skin(bare, views, normals)
        # A face never loses its last Gaussian: where no view shows its skin, one of the old ones stays.
        covered = torch.zeros(len(model.head.faces), dtype=torch.bool, device=doomed.device)
        covered[model.binding[~doomed]] = True
        if skin is not None:
            covered[skin.binding] = True
        doomed &= covered[model.binding]
        count = int(doomed.sum())
        if count == 0:
            return 0
        if skin is not None:
            touched = torch.isin(skin.binding, model.binding[doomed])
            self._append(_some(skin, touched), optimizers)
            doomed = torch.cat([doomed, doomed.new_zeros(int(touched.sum()))])
        remove(
            params=model.gauss_params,
            optimizers=self._own(optimizers),
            state=model.strategy_state,
            mask=doomed,
        )  # type: ignore[arg-type]
        model.binding = model.strategy_state["binding"]
        return count

    # -- growth ------------------------------------------------------------------------------------------------------

    def _grow(self, views: list[SeenView], optimizers: Mapping[str, torch.optim.Optimizer]) -> int:
        model, unedited = self._model, self._unedited
        assert unedited is not None
        left = round((1 + self._budget) * unedited.num_points) - model.num_points
        if left < 1 or (self._allowed is not None and not bool(self._allowed.any())):
            return 0
        carriers = Carriers.of(model.head)
        allowed = None if self._allowed is None else self._allowed.to(model.device)
        parts = new_parts(views, carriers, _opaque_at(unedited, carriers.rest), allowed)
        if parts is None:
            return 0
        seeds = seeds_on(parts, views, carriers, _opaque_at(model, carriers.rest), left)
        if seeds is None:
            return 0
        self._append(seeds, optimizers)
        return len(seeds)

    def _append(self, seeds: Seeds, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        model = self._model
        params = model.gauss_params
        rows = seeds.rows(dict(params.items()))
        append_gaussians(params, self._own(optimizers), model.strategy_state, rows, seeds.binding)  # type: ignore[arg-type]
        model.binding = model.strategy_state["binding"]

    def _own(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, torch.optim.Optimizer]:
        return {name: optimizers[name] for name in self._model.gauss_params if name in optimizers}

    # -- the views ---------------------------------------------------------------------------------------------------

    def _seen(self, index: int) -> SeenView:
        """An edited training view, scaled down, with what the unedited avatar shows there."""
        if index not in self._geometry:
            self._geometry[index] = self._unedited_view(index)
        before = self._geometry[index]
        edited = _scaled(self._datamanager.train_image(index).to(self._model.device), before.alpha)
        return replace(before, edited=edited)

    def _unedited_view(self, index: int) -> SeenView:
        from edit3dgs_ns.training.surface_maps import AvatarMaps

        avatar = self._unedited
        assert avatar is not None
        camera = self._datamanager.train_camera([index])
        original = self._datamanager.original_image(index).to(self._model.device)
        scale = min(1.0, _MOST_PIXELS / max(original.shape[:2]))
        if scale < 1:
            camera.rescale_output_resolution(scale)
        outputs = avatar.get_outputs(camera)
        alpha = outputs["accumulation"][..., 0]
        depth = torch.where(alpha > 0.5, outputs["depth"][..., 0], torch.inf)
        maps = AvatarMaps(self._datamanager, avatar)
        image = _scaled(original, alpha)
        time = 0.0 if camera.times is None else float(camera.times[0, 0])
        frames = avatar.head.frames_at(time)
        return SeenView(
            viewmats_from_c2w(camera.camera_to_worlds)[0],
            camera.get_intrinsics_matrices()[0].to(alpha),
            round(time * 1e6),
            TriangleFrames(frames.centre.detach(), frames.rotation.detach(), frames.size.detach()),
            image,
            image,
            alpha,
            depth,
            torch.from_numpy(maps.canonical_of(camera)).to(alpha),
        )

    def _world(self, frames: TriangleFrames) -> Float[Tensor, "gaussians 3"]:
        params = self._model.gauss_params
        return local_to_world(
            params["means"], params["quats"], params["scales"], self._model.binding, frames
        ).means

    def _normals(self, frames: TriangleFrames) -> Float[Tensor, "faces 3"]:
        """The second column of a triangle's frame."""
        return F.normalize(frames.rotation[..., 1], dim=-1)

    def _may_change(self) -> Bool[Tensor, " gaussians"]:
        binding = self._model.binding
        if self._allowed is None:
            return torch.ones_like(binding, dtype=torch.bool)
        return self._allowed.to(binding.device)[binding]


def _read_state(path: Path) -> dict[str, Tensor]:
    """The unedited avatar of a run that goes on, in main memory, wherever it was trained.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # PyTorch has many for damaged files
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {str(error)[:200]}): it holds the avatar before its edits. Edit the "
            "avatar anew, with --pipeline.avatar instead of --load-dir."
        ) from error


def _opaque_at(model: RiggedSplatfactoModel, rest: TriangleFrames) -> Float[Tensor, "points 3"]:
    """Places of a model's opaque Gaussians at rest."""
    params = model.gauss_params
    opaque = torch.sigmoid(params["opacities"][:, 0]) > _OPAQUE
    means = local_to_world(params["means"], params["quats"], params["scales"], model.binding, rest).means
    return means[opaque]


def _some(seeds: Seeds, chosen: Bool[Tensor, " seeds"]) -> Seeds:
    return Seeds(
        seeds.binding[chosen], seeds.means[chosen], seeds.scales[chosen], seeds.colors[chosen], seeds.opacity
    )


def _scaled(image: Tensor, like: Float[Tensor, "height width"]) -> Float[Tensor, "height width 3"]:
    """An image of bytes as floats in [0, 1], of the size of another by averaging."""
    values = image.float() / 255
    if values.shape[:2] == like.shape:
        return values
    resized = F.interpolate(values.permute(2, 0, 1)[None], size=tuple(like.shape), mode="area")
    return resized[0].permute(1, 2, 0).contiguous()


def _spread(items: list[int], most: int) -> list[int]:
    """At most so many of the items, evenly."""
    places = torch.linspace(0, len(items) - 1, min(most, len(items))).round().long().tolist()
    return [items[place] for place in places]
