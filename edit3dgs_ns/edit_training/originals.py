"""What an edit begins with: its originals, and the history that it adds to.

The diffusion model is conditioned on originals. Those of an avatar as it was trained are the capture's images. An avatar that was
edited before looks different from its capture: its originals are its own renders, or each edit would take back the one before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from edit3dgs_ns.edit_training.versions import FOLDER, RunHistory
from edit3dgs_ns.splats.checkpoints import find_checkpoint, model_state, read_checkpoint
from edit3dgs_ns.training.datamanager import AvatarDatamanager
from edit3dgs_ns.training.frozen_copy import frozen_avatar
from edit3dgs_ns.training.model import RiggedSplatfactoModel


def begin_history(
    run: Path,
    avatar: Path,
    resumed: Path | None,
    datamanager: AvatarDatamanager,
    model: RiggedSplatfactoModel,
) -> RunHistory:
    """For a run that edits another run's avatar: take over how that came to be, and set the originals.

    Args:
        run: folder of the new run, or of the one that goes on.
        avatar: `--pipeline.avatar`.
        resumed: the run that goes on in this one; it knows what it began with, whatever has become of `avatar` since.
        datamanager: whose images are edited.
        model: the avatar, however far it is edited by now.
    """
    option = "--pipeline.avatar"
    if resumed is not None and (resumed / FOLDER).is_dir():
        begun = RunHistory(resumed)
        checkpoint = begun.checkpoint(begun.recorded.number)
    else:
        checkpoint = find_checkpoint(avatar, option, "a run of `ns-train rigged-splatfacto`")
    history = RunHistory.begin(run, checkpoint)
    start = history.recorded
    if any(version.prompt is not None for version in history.chain(start.number)):
        state = model_state(read_checkpoint(history.checkpoint(start.number), option))
        datamanager.use_originals(renders_of(frozen_avatar(model, state), datamanager))
    return history


def renders_of(
    avatar: RiggedSplatfactoModel, datamanager: AvatarDatamanager
) -> Callable[[int], UInt8[np.ndarray, "height width 3"]]:
    """Renders the training views of an avatar that changes no more; from one thread at a time, whoever asks."""
    lock = threading.Lock()

    @torch.no_grad()
    def render(view: int) -> UInt8[np.ndarray, "height width 3"]:
        with lock:
            rgb = avatar.get_outputs(datamanager.train_camera([view]))["rgb"]
        return (rgb * 255).round().to(torch.uint8).cpu().numpy()

    return render
