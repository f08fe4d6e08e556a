"""A 2D edit of the viewer's image, in seconds and without touching the avatar."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras

from edit3dgs_ns.edit_training.job import EditJob
from edit3dgs_ns.editing.editor import Editor, EditRequest, check_finite
from edit3dgs_ns.editing.masks.keep_auto import AUTO
from edit3dgs_ns.editing.masks.regions import KeepMasks, RigMasks, parse_parts
from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.training.model import RiggedSplatfactoModel
from edit3dgs_ns.viewer.layers import canonical_map, region_share


@dataclass(frozen=True)
class Preview:
    """A render and its edit, both in [0, 1]."""

    render: Float[np.ndarray, "height width 3"]
    edited: Float[np.ndarray, "height width 3"]


def preview_request(
    model: RiggedSplatfactoModel,
    regions: dict[str, np.ndarray],
    camera: Cameras,
    pose: FlamePose,
    job: EditJob,
    noise: float,
    seed: int = 0,
) -> EditRequest:
    """Returns the request to edit one view of an avatar.

    Args:
        model: the avatar.
        regions: faces of every named region of its rig.
        camera: one, shape (1,).
        pose: one frame.
        job: the edit.
        noise: as a fraction of the diffusion schedule.
        seed: of the noise.

    Raises:
        ValueError: the prompt is empty, or the rig has no such region.
    """
    with torch.no_grad():
        rgb = model.get_outputs(camera, pose)["rgb"].float().cpu().numpy()[None]

    def draw(_: int, faces: np.ndarray) -> np.ndarray:
        return region_share(model, camera, pose, faces)

    source = RigMasks(regions, len(model.head.faces), draw)
    # A preview shows what the edit makes of eyes and mouth: `auto` decides from such a view.
    keep, only = () if job.keep == AUTO else parse_parts(job.keep), parse_parts(job.only)
    source.check([*keep, *only])
    c2w = np.eye(4, dtype=np.float32)[None]
    c2w[:, :3] = camera.camera_to_worlds.cpu().numpy()
    return EditRequest(
        prompt=job.prompt,
        images=rgb,
        originals=rgb,
        c2w=c2w,
        K=camera.get_intrinsics_matrices().cpu().numpy().astype(np.float32),
        canonical=canonical_map(model, camera, pose)[None],
        seed=seed,
        noise=noise,
        guidance_scale=job.guidance_scale,
        image_guidance_scale=job.image_guidance_scale,
        keep_mask=KeepMasks(source, keep, only).masks(rgb, (0,)),
    )


def make_preview(
    editor: Editor,
    request: Callable[[], EditRequest],
    lock: AbstractContextManager[Any],
    progress: Callable[[int, int], None] | None = None,
) -> Preview:
    """Renders with the lock held, edits without it."""
    with lock:
        prepared = request()
    edited = editor.edit(prepared, progress=progress)
    check_finite(edited.images[0], 0)
    return Preview(prepared.images[0], edited.images[0])
