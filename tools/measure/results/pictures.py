"""The images of the README and docs/, and those that were drawn now."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import numpy as np
from PIL import Image

from tools.measure.results.parts import Place

PICTURES: Mapping[str, str] = {
    "docs/images/before_after.png": "demo/before_after.png",
    "docs/images/true_edit.png": "evaluation/true_edit.png",
    "docs/images/edits.png": "evaluation_edits/before_after.png",
    "docs/images/agree.png": "ablation/summary_face_paint_1.png",
    "docs/images/tracked.png": "tracking/tracked.png",
    "docs/images/viewer.png": "viewer.png",
    "docs/images/viewer_edit.png": "viewer_edit.png",
}
"""Image of the documentation: where below the folder of the results it is drawn."""
MOST = 6.0
"""Mean difference (of 255) up to which two pictures show the same: another machine's rounding, another system's fonts."""


def compare(place: Place) -> dict[str, str]:
    """Verdict on every picture: "as drawn", or what is wrong."""
    return {name: _verdict(place, name, drawn) for name, drawn in PICTURES.items()}


def update(place: Place) -> None:
    """Replaces the documentation's images by those that were drawn."""
    for name, drawn in PICTURES.items():
        if (place.out / drawn).is_file():
            shutil.copyfile(place.out / drawn, place.root / name)


def _verdict(place: Place, name: str, drawn: str) -> str:
    for path in (place.root / name, place.out / drawn):
        if not path.is_file():
            return f"{path} is missing"
    written, now = (_pixels(path) for path in (place.root / name, place.out / drawn))
    if written.shape != now.shape:
        return f"{written.shape[1]} x {written.shape[0]} pixels, drawn {now.shape[1]} x {now.shape[0]}"
    difference = float(np.abs(written - now).mean())
    return "as drawn" if difference <= MOST else f"differs by {difference:.1f} of 255 in the mean"


def _pixels(path: object) -> np.ndarray:
    with Image.open(str(path)) as picture:
        return np.asarray(picture.convert("RGB")).astype(float)
