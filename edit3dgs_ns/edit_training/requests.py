"""From a batch of training views to a request for the editor: the avatar's renders, and what the rig knows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.edit_training.options import EditorConfig
from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.masks.keep_auto import Masks
from edit3dgs_ns.editing.schedule import Batch
from edit3dgs_ns.training.datamanager import AvatarDatamanager
from edit3dgs_ns.training.model import RiggedSplatfactoModel
from edit3dgs_ns.training.surface_maps import AvatarMaps


class RequestMaker:
    """Makes the requests of one training run.

    Args:
        datamanager: gives the views.
        model: renders the current avatar.
        prompt: the instruction.
        config: how the diffusion model is used.
        keep: says what of the views is kept.
        maps: draws the views; the one that `keep` draws with, so that both pose the avatar together.
    """

    def __init__(
        self,
        datamanager: AvatarDatamanager,
        model: RiggedSplatfactoModel,
        prompt: str,
        config: EditorConfig,
        keep: Masks,
        maps: AvatarMaps | None = None,
    ):
        self._prompt, self._config = prompt, config
        self._datamanager, self._keep = datamanager, keep
        self._maps = maps or AvatarMaps(datamanager, model)
        groups = datamanager.indices_by_timestep()
        self._timestep_of = {view: timestep for timestep, views in groups.items() for view in views}

    def make(
        self,
        batch: Batch,
        views: Sequence[int],
        anchors: Mapping[int, Float[np.ndarray, "height width 3"]] | None = None,
    ) -> EditRequest:
        """The request for some views of a batch.

        Args:
            batch: the round.
            views: some of its views, which share an image size.
            anchors: other views of this size that are edited along, by their number, and the edits that they start from.

        The avatar is posed once for every timestep among the views.
        """
        with self._maps.poses_kept():
            return self._make(batch, [*views, *(anchors or {})], anchors or {})

    def _make(
        self,
        batch: Batch,
        views: list[int],
        anchors: Mapping[int, Float[np.ndarray, "height width 3"]],
    ) -> EditRequest:
        config = self._config
        cameras = self._datamanager.train_camera(views)
        c2w = np.tile(np.eye(4, dtype=np.float32), (len(views), 1, 1))
        c2w[:, :3] = cameras.camera_to_worlds.cpu().numpy()[:, :3]
        originals = np.stack([self._datamanager.original_image(view).numpy() for view in views])
        originals = originals.astype(np.float32) / 255
        return EditRequest(
            prompt=self._prompt,
            images=np.stack([anchors[view] if view in anchors else self.render(view) for view in views]),
            originals=originals,
            c2w=c2w,
            K=cameras.get_intrinsics_matrices().cpu().numpy().astype(np.float32),
            timesteps=tuple(self._timestep_of[view] for view in views),
            canonical=np.stack([self._maps.canonical(view) for view in views]),
            view_ids=tuple(views),
            anchors=tuple(range(len(views) - len(anchors), len(views))),
            seed=batch.seed,
            shared_noise=config.shared_noise,
            noise=batch.noise,
            guidance_scale=config.guidance_scale,
            image_guidance_scale=config.image_guidance_scale,
            keep_mask=self._keep.masks(originals, views),
            keep_options=config.keep_options(),
            steps=config.steps,
        )

    def render(self, view: int) -> Float[np.ndarray, "height width 3"]:
        """A training view as the avatar looks now, on white."""
        return self._maps.render(view)
