"""Masks for boxes: SAM 2 ("Segment Anything in Images and Videos", 2024), through its authors' package `sam2`."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from edit3dgs_ns.editing.masks.grounded_sam_cache import Box
from edit3dgs_ns.editing.masks.grounded_sam_files import (
    CHECKPOINTS,
    PICKLED,
    fingerprint,
    locate,
    read_checkpoint,
)
from edit3dgs_ns.editing.masks.grounded_sam_options import OPTION, OTHERWISE, SAM2_INSTALL, SEGMENTER
from edit3dgs_ns.errors import MissingFileError, UserError

if TYPE_CHECKING:
    from torch import Tensor

_OPTION = f"{OPTION}.segmenter"
_SIZES: Mapping[tuple[int, int], str] = {(96, 12): "t", (96, 16): "s", (112, 24): "b+", (144, 48): "l"}
"""Channels and blocks of the image encoder -> the letter of the published size (tiny, small, base plus, large)."""
_ENCODER = "image_encoder.trunk."


class Sam2:
    """Segments what is in boxes.

    Args:
        predictor: the package's `SAM2ImagePredictor`.
        version: says which weights these are.
    """

    def __init__(self, predictor: Any, version: str):
        self._predictor = predictor
        self.settings: dict[str, Any] = {"segmenter": version}
        """What decides the masks besides the views and the boxes, as JSON values."""

    @torch.no_grad()
    def segment(
        self, images: UInt8[np.ndarray, "views height width 3"], boxes: Sequence[Sequence[Box]]
    ) -> list[Bool[np.ndarray, "height width"]]:
        """For each view the union of the masks of its boxes, of which it must have at least one."""
        self._predictor.set_image_batch(list(images))
        corners = [np.array([box.corners for box in of_view], np.float32) for of_view in boxes]
        masks, _, _ = self._predictor.predict_batch(box_batch=corners, multimask_output=False)
        self._predictor.reset_predictor()  # frees the features
        return [mask.reshape(-1, *images.shape[1:3]).max(axis=0) > 0 for mask in masks]


def load_segmenter(segmenter: str, *, device: str | torch.device = "cpu") -> Sam2:
    """SAM 2 or 2.1 from the hub, a folder with one checkpoint, or a checkpoint file; its size is read off the weights.

    Raises:
        FileNotFoundError: the weights are not there.
        ValueError: they are not SAM 2's, or damaged; or the package is not installed.
    """
    check_installed()
    path = _checkpoint(locate(_OPTION, segmenter, ("*.pt",), SEGMENTER))
    weights = read_checkpoint(path, _OPTION)
    config = config_of(weights, path)
    from sam2.build_sam import build_sam2
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what PyTorch will change one day
        model = build_sam2(config, device=str(device))
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise _not_sam2(path, str(error)[:400]) from error
        return Sam2(SAM2ImagePredictor(model), fingerprint([path]))


def check_installed() -> None:
    """Raise a ValueError that says what to install when the package cannot be imported."""
    try:
        importlib.import_module("sam2.build_sam")
    except ImportError as error:
        raise UserError(
            f"--pipeline.masks grounded-sam needs the package sam2, which cannot be imported ({error}). Install it: "
            f"{SAM2_INSTALL}\n{OTHERWISE}"
        ) from error


def config_of(weights: Mapping[str, Tensor], path: Path) -> str:
    """The package's name for the configuration that weights belong to.

    Raises:
        ValueError: it is none of those that were published.
    """
    first = weights.get(f"{_ENCODER}patch_embed.proj.weight")
    blocks = {name.split(".")[3] for name in weights if name.startswith(f"{_ENCODER}blocks.")}
    if first is None:
        raise _not_sam2(path, f"there is no tensor {_ENCODER}patch_embed.proj.weight")
    size = _SIZES.get((first.shape[0], len(blocks)))
    if size is None:
        raise _not_sam2(path, f"no published size has {first.shape[0]} channels and {len(blocks)} blocks")
    version = "sam2.1" if "no_obj_embed_spatial" in weights else "sam2"
    return f"configs/{version}/{version}_hiera_{size}.yaml"


def _checkpoint(source: Path) -> Path:
    if source.is_file():
        return source
    files = sorted(path for path in source.iterdir() if path.suffix in PICKLED)
    files = files or sorted(path for path in source.iterdir() if path.suffix in CHECKPOINTS)
    if len(files) == 1:
        return files[0]
    found = ", ".join(path.name for path in files) or "none"
    raise MissingFileError(
        f"{_OPTION} {source}: expected one checkpoint of SAM 2 (*.pt), found {found}. Name the file. {OTHERWISE}"
    )


def _not_sam2(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{_OPTION} {path}: these are not the weights of SAM 2 as its authors publish them, like sam2.1_hiera_large.pt "
        f"({reason}). {OTHERWISE}"
    )
