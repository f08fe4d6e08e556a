"""Decoded images of a capture that may be larger than memory: read ahead of use by threads, kept as long as they fit.

The life of a stream::

    stream = ImageStream(read, max_bytes=2**30, workers=4)
    for step in range(steps):
        stream.prefetch([*keys_of(step), *keys_of(step + 1), ...])  # starts the workers, returns at once
        images = [stream[key] for key in keys_of(step)]             # waits only for what is not ready yet
    stream.close()                                                  # or let go of the stream

Threads, not processes: Pillow lets go of Python's lock while it decodes, and nothing has to be copied from one process to another.
Which images come in which order is up to the caller alone, so that workers cannot change what is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from edit3dgs_ns.errors import UserError

Key = TypeVar("Key", bound=Hashable)
Image = UInt8[Tensor, "height width 3"]


class ImageStream(Generic[Key]):
    """Images by key. Used by one thread; `read` is called by several.

    Full, the cache stays as it is: with an order that visits every image once an epoch, evicting the least
    recently used image would evict each one just before its next turn. Beyond `max_bytes`, only the images that
    were announced and not yet taken are held.
    """

    def __init__(
        self, read: Callable[[Key], UInt8[np.ndarray, "height width 3"]], max_bytes: int, workers: int
    ):
        """Nothing is read and no thread is started yet.

        Args:
            read: decodes an image; called by the workers and by the thread that asks. What it raises is raised to the one who asks.
            max_bytes: memory for decoded images that are kept.
            workers: threads that decode ahead; 0 decodes each image when it is asked for.
        """
        if max_bytes < 0 or workers < 0:
            raise UserError(f"ImageStream: max_bytes {max_bytes} and workers {workers} must not be negative.")
        self._read, self._free, self._workers = read, max_bytes, workers
        self._kept: dict[Key, Image] = {}
        self._coming: dict[Key, Future[Image]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        """Number of images kept."""
        return len(self._kept)

    def __getitem__(self, key: Key) -> Image:
        """The image; it stays in the cache if there is room."""
        return self.get(key)

    def get(self, key: Key, keep: bool = True) -> Image:
        """The image, decoded by a worker if it was announced in time and by the calling thread if not.

        Args:
            keep: whether it may stay in the cache.

        Raises:
            Exception: whatever `read` raised for this key, in whichever thread.
        """
        image = self._kept.get(key)
        if image is not None:
            return image
        coming = self._coming.pop(key, None)
        # An image that still waits for a free worker is decoded here rather than waited for.
        image = _decode(self._read, key) if coming is None or coming.cancel() else coming.result()
        if keep and image.nbytes <= self._free:
            self._free -= image.nbytes
            self._kept[key] = image
        return image

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Announce all that is needed next, in this order; what was announced before and is not among it is forgotten."""
        if self._workers == 0:
            return
        wanted = dict.fromkeys(key for key in keys if key not in self._kept)
        for key in [key for key in self._coming if key not in wanted]:
            self._coming.pop(key).cancel()
        new = [key for key in wanted if key not in self._coming]
        if new and self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="image-stream")
        for key in new:
            assert self._pool is not None
            self._coming[key] = self._pool.submit(_decode, self._read, key)

    def keep_only(self, wanted: Callable[[Key], bool]) -> None:
        """Forget all images but the wanted ones: room for others."""
        for key in [key for key in self._kept if not wanted(key)]:
            self._free += self._kept.pop(key).nbytes
        for key in [key for key in self._coming if not wanted(key)]:
            self._coming.pop(key).cancel()

    def close(self) -> None:
        """Stop the workers; what they are decoding is still finished. The stream can be used on: workers start anew when needed.

        Without it they stop when the stream is garbage collected or Python exits, after what they are decoding at that time.
        """
        for future in self._coming.values():
            future.cancel()
        self._coming.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _decode(read: Callable[[Key], UInt8[np.ndarray, "height width 3"]], key: Key) -> Image:
    # A function, not a method: the workers' queue must not keep the stream itself alive.
    return torch.from_numpy(np.require(read(key), requirements=["C", "W"]))
