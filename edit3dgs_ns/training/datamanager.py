"""Whole images of a head capture: several cameras of one timestep at a time, on white, and replaceable by edits.

The capture may be larger than memory. `BatchOrder` knows which images the coming steps need, an `ImageStream` decodes them ahead of
use, and only as many as fit into `cache_gb` stay in memory.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
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
from torch import Tensor

from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.training.batch_order import BatchOrder
from edit3dgs_ns.training.dataset import AvatarDataset, Composite
from edit3dgs_ns.training.image_stream import ImageStream

ImageReader = Callable[[], UInt8[np.ndarray, "height width 3"]]
"""Reads an edited image again whenever it is needed; called from several threads."""


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
    cache_gb: float = 1.0
    """Memory (GiB) for decoded training images; 1 holds 800 images of 802 x 550. What does not fit is decoded
    again for each use, by the workers and ahead of time: a larger cache seldom makes training faster."""
    image_workers: int = 4
    """Threads that decode images ahead of use. 0: each image is decoded when its turn comes, while training waits."""
    prefetch_steps: int = 8
    """How many steps ahead images are decoded."""
    cache_images: Literal["cpu", "gpu"] = "cpu"
    """Not used: images are decoded ahead of use and stay in ordinary memory, up to cache_gb."""
    cache_images_type: Literal["uint8", "float32"] = "uint8"
    """Not used: images are always kept as uint8."""


@dataclass(frozen=True)
class _ImageKey:
    """Key of an image in the stream."""

    index: int
    """Of the training image."""
    edit: int
    """Number of the edit that replaces it; 0 for the captured image."""


class AvatarDatamanager(FullImageDatamanager[AvatarDataset]):  # type: ignore[type-arg]
    """Serves batches of cameras that share a timestep, and lets the editing pipeline replace training images."""

    config: AvatarDatamanagerConfig
    train_dataset: AvatarDataset
    eval_dataset: AvatarDataset

    def __init__(self, config: AvatarDatamanagerConfig, device: torch.device | str = "cpu", **kwargs: Any):
        _check(config)
        super().__init__(config, device=device, **kwargs)
        for dataset in (self.train_dataset, self.eval_dataset):
            dataset.composite = config.composite
        sizes = self.train_dataset.sizes
        self._order = BatchOrder(
            [(timestep, *size) for timestep, size in zip(self._timesteps(), sizes, strict=True)],
            config.cameras_per_step,
            config.train_cameras_sampling_seed,
        )
        self._readers: dict[_ImageKey, ImageReader] = {}
        self._replaced: dict[int, UInt8[Tensor, "height width 3"] | _ImageKey] = {}
        self._edit_numbers = itertools.count(1)
        self._render_original: Callable[[int], UInt8[np.ndarray, "height width 3"]] | None = None
        self._train_images = self.make_stream(config.cache_gb, config.image_workers)

    # -- the images ---------------------------------------------------------------------------------------------------

    def make_stream(self, cache_gb: float, workers: int) -> ImageStream[_ImageKey]:
        """A stream of the training images, captured and edited."""
        return ImageStream(self._read_image, int(cache_gb * 2**30), workers)

    def train_image(self, index: int) -> UInt8[Tensor, "height width 3"]:
        """The image that training image `index` stands for now: the edit if there is one, else the original."""
        current = self._current(index)
        return current if isinstance(current, Tensor) else self._train_images[current]

    def original_image(self, index: int) -> UInt8[Tensor, "height width 3"]:
        """Training image `index` before any edit of this run, on white: as captured, if `use_originals` says nothing else."""
        return self._train_images.get(_ImageKey(index, 0), keep=index not in self._replaced)

    def use_originals(self, render: Callable[[int], UInt8[np.ndarray, "height width 3"]] | None) -> None:
        """Let other images stand for the captured ones, all of them, and forget all replacements.

        Args:
            render: gives training image `index`; called whenever it is needed and not in the cache, from several threads. None:
                the captured images themselves.
        """
        for index in self.replaced_indices():
            self.restore_image(index)
        self.restrict_to(None)
        self._render_original = render
        self._train_images.keep_only(lambda key: False)

    def replace_image(
        self,
        index: int,
        image: Float[Tensor, "height width 3"] | UInt8[Tensor, "height width 3"] | ImageReader,
    ) -> None:
        """Training image `index` is `image` from now on, for the rest of the run; floats are in [0, 1].

        Args:
            image: a tensor stays in memory. A function is called whenever the image is needed and not in the
                cache, as images of the capture are read: for edits that are on disk anyway.

        Raises:
            IndexError: no such training image.
            ValueError: the size differs from the camera's (of what a function reads: raised when it is read).
        """
        if not 0 <= index < len(self.train_dataset):
            raise IndexError(f"No training image {index}; there are {len(self.train_dataset)}.")
        self.restore_image(index)
        if not isinstance(image, Tensor):
            key = _ImageKey(index, next(self._edit_numbers))
            self._readers[key] = image
            self._replaced[index] = key
            return
        self._require_size(index, tuple(image.shape))
        if image.dtype != torch.uint8:
            image = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
        self._replaced[index] = image.detach().cpu().clone()

    def restore_image(self, index: int) -> None:
        """Training image `index` is the captured one again."""
        former = self._replaced.pop(index, None)
        if isinstance(former, _ImageKey):
            self._train_images.keep_only(lambda key: key != former)
            del self._readers[former]

    def replaced_indices(self) -> list[int]:
        """The training images that `replace_image` has replaced."""
        return sorted(self._replaced)

    def indices_by_timestep(self) -> dict[int, list[int]]:
        """Training images by timestep (0 ... T-1), in the capture's order."""
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
        self._order.restrict_to(indices)
        if indices is not None:
            used = set(indices)
            self._train_images.keep_only(lambda key: key.index in used)

    def batch_indices(self, step: int) -> list[int]:
        """The training images of a step."""
        return self._order[step]

    def next_train(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """Cameras of one timestep, and their images as uint8 (views, height, width, 3) on the device.

        Raises:
            FileNotFoundError, ValueError: an image is missing or damaged; the message names it.
        """
        indices = self.batch_indices(step)
        self._read_ahead(step)
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

    def held_out(self, split: str) -> EvalImages:
        """The images of `val` (held-out camera) or `test` (sequence not trained on), in order, read one by one."""
        dataset = AvatarDataset(self.dataparser.get_dataparser_outputs(split=split))
        dataset.composite = self.config.composite
        return EvalImages(self, dataset)

    def get_train_rays_per_batch(self) -> int:
        """Pixels per step."""
        width, height = self.train_dataset.sizes[0]
        return width * height * self.config.cameras_per_step

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read_ahead(self, step: int) -> None:
        """Let the workers decode the images of this step and of those that follow."""
        steps = range(step, step + self.config.prefetch_steps + 1)
        coming = [self._current(index) for s in steps for index in self.batch_indices(s)]
        self._train_images.prefetch(key for key in coming if not isinstance(key, Tensor))

    def _current(self, index: int) -> UInt8[Tensor, "height width 3"] | _ImageKey:
        """What training image `index` stands for now."""
        return self._replaced.get(index, _ImageKey(index, 0))

    def _read_image(self, key: _ImageKey) -> UInt8[np.ndarray, "height width 3"]:
        """Called by the workers."""
        if key.edit == 0 and self._render_original is not None:
            return self._render_original(key.index)
        if key.edit == 0:
            return self.train_dataset.get_numpy_image(key.index)
        image = self._readers[key]()
        self._require_size(key.index, image.shape)
        return image

    def _require_size(self, index: int, found: tuple[int, ...]) -> None:
        width, height = self.train_dataset.sizes[index]
        if found != (height, width, 3):
            raise UserError(
                f"The replacement of training image {index} has the shape {found}, its camera {(height, width, 3)}."
            )

    def _eval_pair(self, index: int, dataset: AvatarDataset | None = None) -> tuple[Cameras, dict[str, Any]]:
        dataset = self.eval_dataset if dataset is None else dataset
        camera = deepcopy(dataset.cameras[index : index + 1]).to(self.device)
        # Used once in a while, and one by one: not worth the cache.
        image = torch.from_numpy(dataset.get_numpy_image(index))
        return camera, {"image": image.to(self.device), "image_idx": index}

    def _require_eval_images(self) -> None:
        if len(self.eval_dataset) == 0:
            raise UserError(
                f"{self.config.dataparser.data}: the split {self.test_split!r} has no frames (monocular exports have no "
                "validation camera), so there is nothing to evaluate on. Use a capture with held-out frames."
            )

    def _timesteps(self) -> list[int]:
        """Returns the timestep of every training image; all 0 for data without time."""
        timesteps = self.train_dataset.metadata.get("timesteps")
        return [0] * len(self.train_dataset) if timesteps is None else timesteps.tolist()


class EvalImages:
    """Held-out images as (camera, batch) pairs, read one by one; without a dataset the evaluation's."""

    def __init__(self, datamanager: AvatarDatamanager, dataset: AvatarDataset | None = None):
        self._datamanager, self._dataset = datamanager, dataset

    def __len__(self) -> int:
        return len(self._datamanager.eval_dataset if self._dataset is None else self._dataset)

    def __iter__(self) -> Iterator[tuple[Cameras, dict[str, Any]]]:
        if self._dataset is None:
            self._datamanager._require_eval_images()
        return (self._datamanager._eval_pair(index, self._dataset) for index in range(len(self)))


def _check(config: AvatarDatamanagerConfig) -> None:
    flag = "--pipeline.datamanager."
    for name, least in (("cameras_per_step", 1), ("image_workers", 0), ("prefetch_steps", 0)):
        value = getattr(config, name)
        if value < least:
            raise UserError(f"{flag}{name.replace('_', '-')} {value}: expected at least {least}.")
    if not (math.isfinite(config.cache_gb) and config.cache_gb >= 0):
        raise UserError(f"{flag}cache-gb {config.cache_gb}: expected a size in GiB, 0 or more.")
