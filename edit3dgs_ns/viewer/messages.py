"""Which messages of a viewer's page are taken: those that viser's page sends, with the fields that it sends."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import msgspec
from viser import _messages

DEEPEST = 8
"""Nested lists and maps in a message."""
LARGEST_NUMBER = 1e10
"""In a message: beyond the bytes of the largest file, and of what stands in a scene."""
_FOV, _ASPECT, _QUATERNION = (1e-3, 3.14), (0.05, 20.0), (0.5, 2.0)
"""Of a camera: vertical field of view in radians, width / height, and the norm of its rotation."""
_KINDS = {
    kind.__name__: kind
    for kind in (
        _messages.ViewerCameraMessage,
        _messages.ScenePointerMessage,
        _messages.SceneNodeClickMessage,
        _messages.TransformControlsUpdateMessage,
        _messages.GuiUpdateMessage,
        _messages.FileTransferStart,
        _messages.FileTransferPart,
        _messages.GetRenderResponseMessage,
        _messages.ShareUrlRequest,
        _messages.ShareUrlDisconnect,
    )
}


class MalformedMessage(ValueError):
    """Not a message of viser's page: says why."""


def usable(raw: str | bytes) -> bool:
    """Whether a message can be handled. False for numbers out of range: a page that is hidden has a camera without a shape.

    Args:
        raw: as it came from the socket: MessagePack.

    Raises:
        MalformedMessage: it is not a message of viser's page.
    """
    if not isinstance(raw, bytes):
        raise MalformedMessage("text")
    try:
        content = msgspec.msgpack.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessage("not MessagePack") from error
    name = content.get("type") if isinstance(content, dict) else None
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise MalformedMessage("unknown type")
    del content["type"]
    if content.keys() != {field.name for field in fields(kind)}:
        raise MalformedMessage(f"{kind.__name__} with other fields")
    in_range = _in_range(content, DEEPEST)
    try:
        message = msgspec.convert(content, kind)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise MalformedMessage(f"{kind.__name__} with values of other types") from error
    return in_range and (not isinstance(message, _messages.ViewerCameraMessage) or _has_a_shape(message))


def _in_range(value: Any, depth: int) -> bool:
    """Whether all numbers in it are finite and of a size that something in a scene can have."""
    if isinstance(value, (list, dict)):
        if depth == 0:
            raise MalformedMessage("nested too deeply")
        inner = value.values() if isinstance(value, dict) else value
        return all(_in_range(entry, depth - 1) for entry in inner)
    return not isinstance(value, (int, float)) or (math.isfinite(value) and abs(value) <= LARGEST_NUMBER)


def _has_a_shape(camera: _messages.ViewerCameraMessage) -> bool:
    norm = math.hypot(*camera.wxyz)
    return all(
        low <= value <= high
        for value, (low, high) in ((camera.fov, _FOV), (camera.aspect, _ASPECT), (norm, _QUATERNION))
    )
