"""Editors of the Python API."""

from __future__ import annotations

from pathlib import Path

import torch

from edit3dgs_ns.api.parameters import in_parameters
from edit3dgs_ns.editing.editor import Editor

DEMO = "demo"


def best_device() -> str:
    """`cuda` where there is a device, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@in_parameters
def load_editor(
    model: str | Path = DEMO, *, device: str | None = None, agree: bool = True, detail: float = 1.0
) -> Editor:
    """An editor that changes images as a prompt says.

    Args:
        model: a folder in diffusers' format, a hub id, or a small embedded one, which knows a few edits of the embedded head:
            `demo`, a UNet, or `demo-flow`, a flow-matching transformer; `command:PROGRAM` or `python:package.module:factory` for
            one of your own.
        device: `cpu` or `cuda`; None: CUDA where there is one.
        agree: the views of a batch are edited so that they agree at every surface point of the head; otherwise each is
            edited alone.
        detail: how much of the originals' fine detail, which the model's autoencoder loses, is given back where the edit changes
            little, from 0 to 1.

    Raises:
        FileNotFoundError: the weights are not there or not complete.
        ValueError: `model` is of no family that is known and no editor of one's own, or there is no such device.
    """
    from edit3dgs_ns.editing.agreement.sharing import SharingOptions
    from edit3dgs_ns.editing.editors import load_named_editor

    sharing = SharingOptions("rig" if agree else "none")
    return load_named_editor(model, device=device or best_device(), sharing=sharing, detail=detail)
