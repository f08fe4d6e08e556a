"""The images of a head capture, one by one: decoded, checked against the transforms, and put on white."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image

from edit3dgs_ns.capture.compositing import composite_over_white, needs_compositing
from edit3dgs_ns.errors import MissingFileError, UserError

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
        image = self._read(self.image_filenames[image_idx], image_idx)
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        if image.shape[2] in (2, 4):
            colour = np.repeat(image[:, :, :1], 3, axis=2) if image.shape[2] == 2 else image[:, :, :3]
            return composite_over_white(colour, image[:, :, -1])
        if self._masks is None or self.composite == "never":
            return image
        if self.composite == "auto" and not self._backgrounds_show():
            return image
        return composite_over_white(image, self._mask(image_idx))

    def _backgrounds_show(self) -> bool:
        """Whether images without an alpha channel have to be put on white. The capture's first image decides, in
        whichever order they are read."""
        with self._deciding:
            if self._needs_mask is None:
                image = self._read(self.image_filenames[0], 0)
                self._needs_mask = needs_compositing(image, self._mask(0))
            return self._needs_mask

    def _mask(self, index: int) -> UInt8[np.ndarray, "height width"]:
        assert self._masks is not None
        mask = self._read(self._masks[index], index)
        return mask if mask.ndim == 2 else mask[:, :, -1]

    def _read(self, path: Path, index: int) -> UInt8[np.ndarray, "height width *channels"]:
        return _read_picture(path, self.sizes[index], self.scale_factor)


def _read_picture(
    path: Path, size: tuple[int, int], scale: float
) -> UInt8[np.ndarray, "height width *channels"]:
    """The pixels of a picture as uint8, resized if the data manager scales its images.

    Args:
        size: expected width and height after scaling.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
    except FileNotFoundError:
        raise MissingFileError(f"{path} is missing.") from None
    except Exception as error:  # Pillow raises a dozen kinds for damaged files
        raise UserError(
            f"{path} cannot be read as an image ({error}). It may be truncated: export it again. "
            "`edit3dgs doctor --data DIR` finds all such files of a capture."
        ) from error
    if picture.mode not in ("L", "LA", "RGB", "RGBA"):
        picture = picture.convert(
            "RGBA" if "transparency" in picture.info else "L" if picture.mode == "1" else "RGB"
        )
    if scale != 1.0:
        picture = picture.resize(
            (int(picture.width * scale), int(picture.height * scale)), Image.Resampling.BILINEAR
        )
    if picture.size != size:
        raise UserError(
            f"{path} is {picture.width} x {picture.height} pixels; the capture's transforms say {size[0]} x {size[1]}."
        )
    return np.array(picture)
