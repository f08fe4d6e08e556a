"""Whole images of a head capture: several cameras of one timestep at a time, on white, and replaceable by edits.

Order: in every epoch each training image is used once. Images are grouped by timestep (posing the head is shared by the cameras of
a batch), shuffled within the timestep, cut into batches, and the batches are shuffled. Which batch a step gets depends on the seed
and the step alone, so that a resumed run goes on with the order it was stopped in.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Type  # noqa: UP035  (tyro reads these at run time)

import numpy as np
import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.full_images_datamanager import (
    FullImageDatamanager,
    FullImageDatamanagerConfig,
)
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image
from torch import Tensor

from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig

Composite = Literal["auto", "always", "never"]
_WHITE_ENOUGH = 250
"""An image is on white already when its background is at least this bright (of 255) almost everywhere."""


@dataclass
class AvatarDatamanagerConfig(FullImageDatamanagerConfig):
    """Whole images of a head capture, in batches of cameras that share a timestep."""

    _target: Type = field(default_factory=lambda: AvatarDatamanager)  # noqa: UP006
    """target class to instantiate"""
    dataparser: AnnotatedDataParserUnion = field(default_factory=NersembleDataParserConfig)
    """Specifies the dataparser used to unpack the data."""
    cameras_per_step: int = 2
    """Cameras of one timestep that are rendered in each step. The head is posed once for all of them."""
    composite: Composite = "auto"
    """Put the foreground on white with the masks of the capture: `auto` looks whether the images are on white already."""
    cache_gb: float = 6.0
    """Memory for decoded training and evaluation images (uint8). What does not fit is read from disk again when needed."""
    cache_images: Literal["cpu", "gpu"] = "cpu"
    """Not used: images are decoded when first needed and stay in ordinary memory, up to cache_gb."""
    cache_images_type: Literal["uint8", "float32"] = "uint8"
    """Not used: images are always kept as uint8."""


class AvatarDataset(InputDataset):
    """Images with the background turned white. Masks come from the capture's `fg_masks`, an alpha channel always counts."""

    def __init__(self, dataparser_outputs: Any, scale_factor: float = 1.0):
        super().__init__(dataparser_outputs, scale_factor)
        self.composite: Composite = "auto"
        self._masks: list[Path] | None = self.metadata.get("fg_mask_filenames")
        self._needs_mask: bool | None = None

    def get_numpy_image(self, image_idx: int) -> UInt8[np.ndarray, "height width 3"]:
        """The image on white.

        Raises:
            ValueError: the file is damaged, or its size is not what the capture's transforms say.
        """
        path = self.image_filenames[image_idx]
        size = (int(self.cameras.width[image_idx]), int(self.cameras.height[image_idx]))
        image = _read_picture(path, size, self.scale_factor)
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        if image.shape[2] in (2, 4):
            colour = np.repeat(image[:, :, :1], 3, axis=2) if image.shape[2] == 2 else image[:, :, :3]
            return _on_white(colour, image[:, :, -1])
        if self._masks is None or self.composite == "never":
            return image
        if self.composite == "auto" and self._needs_mask is False:
            return image
        mask = _read_picture(self._masks[image_idx], size, self.scale_factor)
        mask = mask if mask.ndim == 2 else mask[:, :, -1]
        if self._needs_mask is None:
            outside = image[mask == 0]
            self._needs_mask = outside.size > 0 and float((outside < _WHITE_ENOUGH).mean()) > 0.01
        return _on_white(image, mask) if self.composite == "always" or self._needs_mask else image


class AvatarDatamanager(FullImageDatamanager[AvatarDataset]):  # type: ignore[type-arg]
    """Serves batches of cameras that share a timestep, and lets the editing pipeline replace training images."""

    config: AvatarDatamanagerConfig
    train_dataset: AvatarDataset
    eval_dataset: AvatarDataset

    def __init__(self, config: AvatarDatamanagerConfig, device: torch.device | str = "cpu", **kwargs: Any):
        if config.cameras_per_step < 1:
            raise ValueError(
                f"--pipeline.datamanager.cameras-per-step {config.cameras_per_step}: expected at least 1."
            )
        super().__init__(config, device=device, **kwargs)
        for dataset in (self.train_dataset, self.eval_dataset):
            dataset.composite = config.composite
        half = int(config.cache_gb * 2**30 / 2)
        self._train_images = ImageCache(self.train_dataset.get_numpy_image, half)
        self._eval_images = ImageCache(self.eval_dataset.get_numpy_image, half)
        self._replaced: dict[int, UInt8[Tensor, "height width 3"]] = {}
        self._allowed: tuple[int, ...] | None = None
        self._epoch: tuple[int, list[list[int]]] | None = None

    # -- the images ---------------------------------------------------------------------------------------------------

    def train_image(self, index: int) -> UInt8[Tensor, "height width 3"]:
        """The image that training image `index` stands for now: the edit if there is one, else the original."""
        edited = self._replaced.get(index)
        return edited if edited is not None else self._train_images[index]

    def original_image(self, index: int) -> UInt8[Tensor, "height width 3"]:
        """Training image `index` as it was captured, on white."""
        return self._train_images[index]

    def replace_image(
        self, index: int, image: Float[Tensor, "height width 3"] | UInt8[Tensor, "height width 3"]
    ) -> None:
        """Training image `index` is `image` from now on, for the rest of the run; floats are in [0, 1].

        Raises:
            IndexError: no such training image.
            ValueError: the size differs from the camera's.
        """
        if not 0 <= index < len(self.train_dataset):
            raise IndexError(f"No training image {index}; there are {len(self.train_dataset)}.")
        expected = (
            int(self.train_dataset.cameras.height[index]),
            int(self.train_dataset.cameras.width[index]),
            3,
        )
        if tuple(image.shape) != expected:
            raise ValueError(
                f"The replacement of training image {index} has the shape {tuple(image.shape)}, its camera {expected}."
            )
        if image.dtype != torch.uint8:
            image = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
        self._replaced[index] = image.detach().cpu().clone()

    def restore_image(self, index: int) -> None:
        """Training image `index` is the captured one again."""
        self._replaced.pop(index, None)

    def replaced_indices(self) -> list[int]:
        """The training images that `replace_image` has replaced."""
        return sorted(self._replaced)

    def indices_by_timestep(self) -> dict[int, list[int]]:
        """Training images by place on the motion (0 ... T-1), in the capture's order."""
        groups: dict[int, list[int]] = defaultdict(list)
        for index, timestep in enumerate(self._timesteps()):
            groups[timestep].append(index)
        return dict(groups)

    def train_camera(self, indices: Sequence[int]) -> Cameras:
        """The cameras of training images, on the device, with `times` and the image indices in `metadata["cam_idx"]`."""
        cameras = self.train_dataset.cameras[torch.as_tensor(list(indices))].to(self.device)
        cameras.metadata = {"cam_idx": torch.as_tensor(list(indices), device=cameras.device)[:, None]}
        return cameras

    # -- batches ------------------------------------------------------------------------------------------------------

    def restrict_to(self, indices: Sequence[int] | None) -> None:
        """Train only on these images from now on; None for all of them."""
        if indices is not None and not indices:
            raise ValueError("Training cannot be restricted to no images at all.")
        self._allowed = None if indices is None else tuple(sorted(set(indices)))
        self._epoch = None

    def batch_indices(self, step: int) -> list[int]:
        """The training images of a step."""
        num_batches = len(self._batches(0)) if self._epoch is None else len(self._epoch[1])
        number, position = divmod(step, num_batches)
        if self._epoch is None or self._epoch[0] != number:
            self._epoch = (number, self._batches(number))
        return self._epoch[1][position]

    def next_train(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """Cameras of one timestep, and their images as uint8 (views, height, width, 3) on the device."""
        indices = self.batch_indices(step)
        images = torch.stack([self.train_image(i) for i in indices]).to(self.device)
        return self.train_camera(indices), {"image": images, "image_idx": torch.tensor(indices)}

    def next_eval(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """One evaluation image."""
        return self.next_eval_image(step)

    def next_eval_image(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """One evaluation image, drawn by seed and step."""
        self._require_eval_images()
        generator = random.Random(f"{self.config.train_cameras_sampling_seed}/eval/{step}")
        return self._eval_pair(generator.randrange(len(self.eval_dataset)))

    @property
    def fixed_indices_eval_dataloader(self) -> EvalImages:  # type: ignore[override]
        """All evaluation images in order; nothing is read before it is iterated (the viewer looks at every property)."""
        return EvalImages(self)

    def get_train_rays_per_batch(self) -> int:
        """Pixels per step."""
        cameras = self.train_dataset.cameras
        return int(cameras.width[0]) * int(cameras.height[0]) * self.config.cameras_per_step

    def _eval_pair(self, index: int) -> tuple[Cameras, dict[str, Any]]:
        camera = deepcopy(self.eval_dataset.cameras[index : index + 1]).to(self.device)
        return camera, {"image": self._eval_images[index].to(self.device), "image_idx": index}

    def _require_eval_images(self) -> None:
        if len(self.eval_dataset) == 0:
            raise ValueError(
                f"{self.config.dataparser.data}: the split {self.test_split!r} has no frames (monocular exports have no "
                "validation camera), so there is nothing to evaluate on. Use a capture with held-out frames."
            )

    def _batches(self, epoch: int) -> list[list[int]]:
        generator = random.Random(f"{self.config.train_cameras_sampling_seed}/train/{epoch}")
        cameras = self.train_dataset.cameras
        timesteps = self._timesteps()
        groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for index in self._allowed if self._allowed is not None else range(len(self.train_dataset)):
            groups[timesteps[index], int(cameras.width[index]), int(cameras.height[index])].append(index)
        batches = []
        for key in sorted(groups):
            members = groups[key]
            generator.shuffle(members)
            size = self.config.cameras_per_step
            batches += [members[start : start + size] for start in range(0, len(members), size)]
        generator.shuffle(batches)
        return batches

    def _timesteps(self) -> list[int]:
        """The place on the motion of every training image; all 0 for data without time."""
        timesteps = self.train_dataset.metadata.get("timesteps")
        return [0] * len(self.train_dataset) if timesteps is None else timesteps.tolist()


class EvalImages:
    """The evaluation images as (camera, batch) pairs, read one by one."""

    def __init__(self, datamanager: AvatarDatamanager):
        self._datamanager = datamanager

    def __len__(self) -> int:
        return len(self._datamanager.eval_dataset)

    def __iter__(self) -> Iterator[tuple[Cameras, dict[str, Any]]]:
        self._datamanager._require_eval_images()
        return (self._datamanager._eval_pair(index) for index in range(len(self)))


class ImageCache:
    """Decoded images, read when first asked for, kept as long as they fit.

    Full, it stays as it is: with an order that visits every image once an epoch, evicting the least recently used image would
    evict each one just before its next turn.
    """

    def __init__(self, read: Callable[[int], UInt8[np.ndarray, "height width 3"]], max_bytes: int):
        self._read, self._free = read, max_bytes
        self._images: dict[int, UInt8[Tensor, "height width 3"]] = {}

    def __len__(self) -> int:
        """Number of images held."""
        return len(self._images)

    def __getitem__(self, index: int) -> UInt8[Tensor, "height width 3"]:
        image = self._images.get(index)
        if image is None:
            image = torch.from_numpy(np.array(self._read(index)))
            if image.numel() <= self._free:
                self._free -= image.numel()
                self._images[index] = image
        return image


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
        raise FileNotFoundError(f"{path} is missing.") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(
            f"{path} cannot be read as an image ({error}). It may be truncated: export it again."
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
        raise ValueError(
            f"{path} is {picture.width} x {picture.height} pixels; the capture's transforms say {size[0]} x {size[1]}."
        )
    return np.array(picture)


def _on_white(
    image: UInt8[np.ndarray, "height width 3"], mask: UInt8[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """`mask` is the foreground's coverage, 255 where it is all foreground."""
    coverage = mask[:, :, None].astype(np.uint16)
    return ((image * coverage + 255 * (255 - coverage) + 127) // 255).astype(np.uint8)
