"""Reads image files as 8-bit pixels: one reader for training, drivers, evaluation, the viewer and the doctor.

| in the file | read as |
|---|---|
| 8 bits a channel, 1 bit, palette, CMYK | as Pillow converts it to grey, RGB or RGBA |
| 16 bits a channel | 65535 is white |
| floating point | 1 is white; values outside [0, 1] are refused |
| 32-bit integers | refused: no value is white by agreement |

Images are turned as their EXIF orientation says. An alpha channel, and a transparent colour (PNG's tRNS), are kept. Nothing is
clipped: what would be is refused, with the values that were found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from edit3dgs_ns.errors import MissingFileError, UserError

_ADVICE = "Export it again. `edit3dgs doctor --data DIR` finds all such files of a capture."
_LEAST_FOREGROUND = 128
"""A mask whose brightest pixel is darker is none: the head would vanish."""
_EIGHT_BITS = ("L", "RGB", "RGBA")
_ORIENTATION = 0x0112
"""EXIF's tag."""


class ImageProblem(UserError):
    """An image file that cannot be used."""

    def __init__(self, path: Path, what: str):
        super().__init__(f"{path} {what}. {_ADVICE}")
        self.what = what
        """The message without the file's name."""


def read_image(
    path: Path, size: tuple[int, int] | None = None, scale: float = 1.0
) -> tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width"] | None]:
    """The colours of an image, and its alpha channel if it has one.

    Args:
        path: any format that Pillow reads.
        size: expected width and height in pixels, after scaling.
        scale: resizes the image by this factor.

    Raises:
        MissingFileError: no such file.
        ImageProblem: it is damaged, of another size, or has values without a meaning.
    """
    image = _read(path, size, scale)
    pixels = np.array(image)  # a copy, which may be written to
    if image.mode == "L":
        return np.repeat(pixels[:, :, None], 3, axis=2), None
    return pixels[:, :, :3], pixels[:, :, 3] if image.mode == "RGBA" else None


def read_mask(
    path: Path, size: tuple[int, int] | None = None, scale: float = 1.0
) -> UInt8[np.ndarray, "height width"]:
    """Coverage of the foreground: 255 where a pixel is all foreground.

    It is the alpha channel where that is not opaque everywhere, else the brightness. Arguments and errors as for `read_image`.
    """
    image = _read(path, size, scale)
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    opaque = alpha is None or alpha.getextrema() == (255, 255)
    coverage = np.asarray(image.convert("L") if opaque else alpha)
    brightest = int(coverage.max())
    if 0 < brightest < _LEAST_FOREGROUND:
        raise ImageProblem(path, f"has values up to {brightest}; expected 255 where the head is")
    return coverage


@dataclass(frozen=True)
class ImageHeader:
    """Properties of an image that are known before it is decoded."""

    size: tuple[int, int]
    """Width and height in pixels, turned as the EXIF orientation says."""
    is_float: bool
    """Whether its values are of floating point: only decoding tells whether they are from 0 to 1."""


def read_header(path: Path) -> ImageHeader:
    """Size and kind of an image, without decoding it.

    Raises:
        MissingFileError: no such file.
        ImageProblem: it is no image, or one of 32-bit integers.
    """
    with _opened(path) as image:
        _require_known_range(path, image)
        # Pillow turns TIFFs itself, some releases when they are opened and some when they are decoded; others not at all.
        turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) >= 5  # 5 to 8: by a quarter
        return ImageHeader((image.height, image.width) if turned else image.size, image.mode == "F")


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise MissingFileError(f"{path} is missing.") from None
    except Exception as error:  # Pillow raises a dozen kinds for damaged files
        raise ImageProblem(path, f"cannot be read as an image ({error})") from error


def _read(path: Path, size: tuple[int, int] | None, scale: float) -> Image.Image:
    """The image in 8 bits: grey, RGB or RGBA."""
    with _opened(path) as stored:
        _require_known_range(path, stored)
        try:
            stored.load()
            ImageOps.exif_transpose(stored, in_place=True)
        except Exception as error:
            raise ImageProblem(path, f"cannot be decoded ({error})") from error
    image = _in_8_bits(path, stored)
    if scale != 1.0:
        image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
    if size is not None and image.size != size:
        raise ImageProblem(path, wrong_size(image.size, size))
    return image


def wrong_size(found: tuple[int, int], expected: tuple[int, int]) -> str:
    """Message for an image of another size than the capture says."""
    return f"is {found[0]} x {found[1]} pixels; the capture's transforms say {expected[0]} x {expected[1]}"


def _require_known_range(path: Path, image: Image.Image) -> None:
    # Older releases of Pillow open PNGs of 16 bits in mode "I"; in a TIFF it is 32-bit integers.
    if image.mode == "I" and image.format != "PNG":
        raise ImageProblem(
            path,
            "holds signed or 32-bit integers, which have no agreed white; expected 8 or 16 bits a channel",
        )


def _in_8_bits(path: Path, image: Image.Image) -> Image.Image:
    transparent = "transparency" in image.info
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        grey = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
        if not transparent:
            return grey
        opaque = Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8))
        return Image.merge("RGBA", (grey, grey, grey, opaque))
    if image.mode == "F":
        return Image.fromarray(_float_in_8_bits(path, np.asarray(image)))
    if image.mode in _EIGHT_BITS and not transparent:
        return image
    if image.mode == "1" and not transparent:
        return image.convert("L")
    try:
        return image.convert("RGBA" if transparent or image.has_transparency_data else "RGB")
    except ValueError as error:
        raise ImageProblem(path, f"has colours of the kind {image.mode}; expected grey or RGB") from error


def _float_in_8_bits(path: Path, values: np.ndarray) -> UInt8[np.ndarray, "height width"]:
    levels = np.rint(values * np.float32(255))
    if not np.isfinite(levels).all():
        raise ImageProblem(
            path, "holds values that are not finite; expected 0 to 1, as in all images of floating point"
        )
    if levels.min() < 0 or levels.max() > 255:
        found = f"values from {values.min():.6g} to {values.max():.6g}"
        raise ImageProblem(path, f"holds {found}; expected 0 to 1, as in all images of floating point")
    return levels.astype(np.uint8)
