"""Finds damaged image files by their first and last bytes: thousands of files a second.

PNG (ISO/IEC 15948): eight bytes of signature, then chunks of length, type, data and check sum; the first is IHDR (size and
kind of pixels), the last IEND. A copy that was cut off lacks the end, a file of zeros after a crash lacks the beginning.
Damage in the middle shows only when the pixels are decoded.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Literal

from edit3dgs_ns.capture.images import ImageProblem, read_header, read_image, read_mask, wrong_size
from edit3dgs_ns.errors import MissingFileError

ImageKind = Literal["image", "mask"]

_PNG = b"\x89PNG\r\n\x1a\n"
_IEND = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def quick_problem(path: Path, size: tuple[int, int]) -> str | None:
    """Message about a damaged PNG or JPEG file, without decoding it; None for a sound one.

    Args:
        size: width and height that it should have, pixels.
    """
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(33)
            if not head:
                return "is empty"
            if head.startswith(_PNG):
                return _png_problem(file, path, head, size)
            if head.startswith(_JPEG):
                return _jpeg_problem(file, path, size)
            if not any(head):
                return "holds zeros instead of an image (a copy that was interrupted, or a full disk)"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return _pillow_problem(path, size)


def decoded_problem(path: Path, size: tuple[int, int], kind: ImageKind) -> str | None:
    """Message about an image file that cannot be used, after decoding all of it; None for a sound one."""
    try:
        if kind == "image":
            read_image(path, size)
        elif not read_mask(path, size).any():
            return "is all background: no pixel shows the head"
    except MissingFileError:
        return "is missing"
    except ImageProblem as problem:
        return problem.what
    return None


def _png_problem(file: BinaryIO, path: Path, head: bytes, size: tuple[int, int]) -> str | None:
    if len(head) < 33:
        return f"is truncated: {len(head)} bytes"
    width, height = struct.unpack(">II", head[16:24])
    if head[12:16] != b"IHDR" or zlib.crc32(head[12:29]) != int.from_bytes(head[29:33], "big"):
        return "is damaged: the header of the PNG does not add up"
    if not _png_ends(file):
        return (
            f"is truncated: {os.fstat(file.fileno()).st_size} bytes, and the end of the PNG is not among them"
        )
    # An EXIF orientation, which Pillow knows to find, may exchange them.
    return _pillow_problem(path, size) if (width, height) != size else None


def _png_ends(file: BinaryIO) -> bool:
    """Whether the last chunk is there. Usually the last bytes; some programs write something of their own after it."""
    end = file.seek(0, os.SEEK_END)
    file.seek(end - len(_IEND))
    if file.read(len(_IEND)) == _IEND:
        return True
    position = len(_PNG)
    while position + len(_IEND) <= end:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"IEND":
            return True
        position += 12 + length
    return False


def _jpeg_problem(file: BinaryIO, path: Path, size: tuple[int, int]) -> str | None:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - 64, 0))
    if _JPEG_END not in file.read(64):
        return f"is truncated: {end} bytes, and the end of the JPEG is not among them"
    return _pillow_problem(path, size)


def _pillow_problem(path: Path, size: tuple[int, int]) -> str | None:
    try:
        header = read_header(path)
        if header.is_float:
            read_image(path)
    except ImageProblem as problem:
        return problem.what
    return None if header.size == size else wrong_size(header.size, size)
