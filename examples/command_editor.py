#!/usr/bin/env python
"""An editor of your own as a program: paints the head in the colour that the prompt names.

    ns-train edit3dgs --prompt "Paint him blue" --pipeline.editor.model "command:python examples/command_editor.py" ...

It gets a folder with `request.json`, reads `originals/`, and leaves `edited/`; put your own model where `painted` is. What it
prints is shown if it fails. Nothing but the names in `request.json` is needed: any language can do this.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor


def painted(image: np.ndarray, color: tuple[int, ...]) -> np.ndarray:
    """The picture with its brightness kept and its colour replaced, white left as it is."""
    brightness = image.mean(axis=-1, keepdims=True)
    head = image.min(axis=-1, keepdims=True) < 0.97
    return np.where(head, (0.3 + 0.7 * np.array(color) / 255) * brightness, image)


def color_in(prompt: str) -> tuple[int, ...]:
    """The first word of the prompt that names a colour."""
    for word in prompt.lower().replace(".", " ").replace(",", " ").split():
        if word in ImageColor.colormap:
            return ImageColor.getrgb(word)
    sys.exit(f"no colour in the prompt {prompt!r}")


def main() -> None:
    """Edits all views of a request."""
    folder = Path(sys.argv[1])
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    color = color_in(request["prompt"])
    for view in request["views"]:
        original = np.asarray(Image.open(folder / view["original"]).convert("RGB"), np.float32) / 255
        edited = (painted(original, color).clip(0, 1) * 255).round().astype(np.uint8)
        Image.fromarray(edited).save(folder / view["edited"])


if __name__ == "__main__":
    main()
