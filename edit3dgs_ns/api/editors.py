"""Editors of the Python API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from edit3dgs_ns.api.parameters import in_parameters

if TYPE_CHECKING:
    from edit3dgs_ns.editing.editor import Editor

DEMO = "demo"


def best_device() -> str:
    """`cuda` where there is a device, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@in_parameters
def load_editor(model: str | Path = DEMO, *, device: str | None = None, agree: bool = True) -> Editor:
    """An editing model that changes images as a prompt says.

    Args:
        model: a folder in diffusers' format, a hub id, or `demo` for the small embedded one, which knows a few edits of the
            embedded head.
        device: `cpu` or `cuda`; None: CUDA where there is one.
        agree: the views of a batch are edited so that they agree at every surface point of the head; otherwise each is
            edited alone.

    Raises:
        FileNotFoundError: the weights are not there or not complete.
        ValueError: `model` is of no family that is known, or there is no such device.
    """
    from edit3dgs_ns.editing.agreement.sharing import SharingOptions
    from edit3dgs_ns.editing.diffusion.loading import load_editor as load

    sharing = SharingOptions("rig" if agree else "none")
    return load(model, device=device or best_device(), sharing=sharing)
