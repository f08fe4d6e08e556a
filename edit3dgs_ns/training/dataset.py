"""The images of a head capture, one by one: decoded, checked against the transforms, and put on white."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from nerfstudio.data.datasets.base_dataset import InputDataset

from edit3dgs_ns.capture.compositing import composite_over_white, needs_compositing
from edit3dgs_ns.capture.images import read_image, read_mask
from edit3dgs_ns.errors import UserError

Composite = Literal["auto", "always", "never"]


class AvatarDataset(InputDataset):
    """Images with the background turned white. Masks come from the capture's `fg_masks`, an alpha channel always counts.

    `get_numpy_image` may be called by several threads at once.
    """

    def __init__(self, dataparser_outputs: Any, scale_factor: float = 1.0):
        super().__init__(dataparser_outputs, scale_factor)
        self.composite: Composite = "auto"
        self._masks: list[Path] | None = self.metadata.get("fg_mask_filenames")
        # Lists: indexing a tensor costs more than all the rest of the bookkeeping of an image.
        self.sizes: list[tuple[int, int]] = list(
            zip(self.cameras.width.flatten().tolist(), self.cameras.height.flatten().tolist(), strict=True)
        )
        """Width and height of every image, in pixels."""
        self._needs_mask: bool | None = None
        self._deciding = threading.Lock()

    @property
    def _dataparser_outputs(self) -> Any:
        """What Nerfstudio made the dataset of. `ns-render dataset` takes it from here, and would end in an obscure error where
        there are no images.

        Raises:
            ValueError: the split has no images.
        """
        if not self._made_of.image_filenames:
            split, capture = self.metadata.get("split"), self.metadata.get("capture")
            raise UserError(
                f"{capture}: the split {split!r} has no images, so there is nothing to render. Render another one, such as --split "
                "train, or give cameras of your own: ns-render camera-path."
            )
        return self._made_of

    @_dataparser_outputs.setter
    def _dataparser_outputs(self, outputs: Any) -> None:
        self._made_of = outputs

    def __len__(self) -> int:
        """Images."""
        return len(self._made_of.image_filenames)

    @property
    def image_filenames(self) -> list[Path]:
        """Of every image."""
        return list(self._made_of.image_filenames)

    def get_numpy_image(self, image_idx: int) -> UInt8[np.ndarray, "height width 3"]:
        """The image on white.

        Raises:
            FileNotFoundError: the image or its mask is missing.
            ValueError: the file is damaged, or its size is not what the capture's transforms say.
        """
        colour, alpha = self._read(image_idx)
        if alpha is not None:
            return composite_over_white(colour, alpha)
        if self._masks is None or self.composite == "never":
            return colour
        if self.composite == "auto" and not self._backgrounds_show():
            return colour
        return composite_over_white(colour, self._mask(image_idx))

    def _backgrounds_show(self) -> bool:
        """Whether images without an alpha channel have to be put on white. The capture's first image decides, in
        whichever order they are read."""
        with self._deciding:
            if self._needs_mask is None:
                self._needs_mask = needs_compositing(self._read(0)[0], self._mask(0))
            return self._needs_mask

    def _mask(self, index: int) -> UInt8[np.ndarray, "height width"]:
        assert self._masks is not None
        return read_mask(self._masks[index], self.sizes[index], self.scale_factor)

    def _read(
        self, index: int
    ) -> tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width"] | None]:
        return read_image(self.image_filenames[index], self.sizes[index], self.scale_factor)
