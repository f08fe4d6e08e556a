"""Text and images for the viewer's panel, which shows Markdown with JSX in it (MDX)."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

_SPECIAL = set("\\`*_{}[]<>()#+-!|~&$")


def plain(text: str) -> str:
    """Any text as itself: nothing in it is markup or code."""
    return "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in " ".join(text.split()))


def wrapped(text: str) -> str:
    """Any text as itself, broken inside of words where the panel would grow: paths have no spaces."""
    return f'<span style={{{{overflowWrap: "anywhere"}}}}>{plain(text)}</span>'


def image_element(
    image: UInt8[np.ndarray, "height width 3"] | Float[np.ndarray, "height width 3"], caption: str
) -> str:
    """Returns the element of an image as wide as the panel; floats are in [0, 1]."""
    if image.dtype != np.uint8:
        image = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=90)
    data = base64.b64encode(buffer.getvalue()).decode()
    # An element of its own: images in Markdown's notation are shrunk to 240 pixels.
    alt = "".join(letter for letter in caption if letter.isalnum() or letter == " ")
    return f'<img alt="{alt}" style={{{{width: "100%"}}}} src="data:image/jpeg;base64,{data}" />'
