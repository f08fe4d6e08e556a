"""What encoders of a model returned, by what they were given."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_CAPACITY = 512 * 2**20
"""Bytes of main memory for encodings; 200 originals of a megapixel in Qwen-Image, with their prompts."""


class Encodings:
    """What encoders returned, by what they were given; the least recently used go first when there is no room.

    Args:
        capacity: bytes of main memory.
    """

    def __init__(self, capacity: int = _CAPACITY):
        self._capacity, self._size = capacity, 0
        self._known: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def remembering(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, which is called once for the same arguments. Its results are tensors, or tuples with some."""

        @functools.wraps(encode)
        def remembered(*args: Any, **options: Any) -> Any:
            content = sha256(encode.__qualname__.encode())
            _digest(content, [args, options])
            key = content.hexdigest()
            if key not in self._known:
                result = encode(*args, **options)
                self._keep(key, result)
                return result
            self._known.move_to_end(key)
            return _copied(self._known[key][0])

        return remembered

    def _keep(self, key: str, result: Any) -> None:
        size = _bytes_of(result)
        self._known[key] = _stored(result), size
        self._size += size
        while self._size > self._capacity:
            _, (_, oldest) = self._known.popitem(last=False)
            self._size -= oldest


# -- arguments and results -----------------------------------------------------------------------------------------


def _digest(content: Any, value: Any) -> None:
    """Adds a value and its type to a hash."""
    content.update(type(value).__name__.encode())
    if isinstance(value, Tensor):
        content.update(f"{value.dtype} {tuple(value.shape)}".encode())
        content.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(value, np.ndarray):
        content.update(f"{value.dtype} {value.shape}".encode())
        content.update(np.ascontiguousarray(value))
    elif isinstance(value, Image.Image):
        content.update(f"{value.mode} {value.size}".encode())
        content.update(value.tobytes())
    elif isinstance(value, dict):
        _digest(content, sorted(value.items()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            _digest(content, part)
        content.update(b"end")
    else:
        content.update(repr(value).encode() + b"\0")


def _stored(value: Any) -> Any:
    """A copy in main memory, which says where it was."""
    if isinstance(value, Tensor):
        return value.device, value.detach().to("cpu", copy=True)
    return [_stored(part) for part in value] if isinstance(value, (list, tuple)) else value


def _copied(value: Any) -> Any:
    """From `_stored`, for somebody who may change it."""
    if isinstance(value, tuple):
        device, tensor = value
        return tensor.to(device, copy=True)
    return tuple(_copied(part) for part in value) if isinstance(value, list) else value


def _bytes_of(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes_of, value)) if isinstance(value, (list, tuple)) else 0
