"""Where a background stands: the file of `--background-transform`, read and written. Needs neither Nerfstudio nor PyTorch.

Either a similarity as a matrix, or its parts (scaled, then turned about the x, the y and the z axis in degrees, then moved):

    {"matrix": [[0.5, 0, 0, 0], [0, 0, 0.5, 0], [0, -0.5, 0, -0.3], [0, 0, 0, 1]]}
    {"scale": 0.5, "rotation": [-90, 0, 0], "translation": [0, 0, -0.3]}

It leads from the background to the head's world: metres, y up, the face looks along +z, the head near the origin. A background's
own coordinates are those that its Gaussians have: of a Nerfstudio run the normalised ones, which ns-viewer shows and ns-export
writes (z up, cameras within -1 to 1). With "coordinates": "data" the transform begins in the coordinates of the data that the run
was trained on instead (those of its transforms.json), before Nerfstudio normalised them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.files import write_atomically
from edit3dgs_ns.splats.similarity import Similarity
from edit3dgs_ns.untrusted import parse_json

OPTION = "--background-transform"
NORMALISATION = "dataparser_transforms.json"
"""What Nerfstudio leaves in a run: how the data's coordinates became those of the training."""
Coordinates = Literal["scene", "data"]
_PARTS = ("scale", "rotation", "translation")
_EXPECTED = (
    'Expected {"matrix": a 4 x 4 similarity} or {"scale": number, "rotation": [degrees about x, y, z], "translation": '
    '[metres]}, and nothing else but "coordinates": "scene" or "data".'
)


@dataclass(frozen=True)
class Placement:
    """A file of `--background-transform`."""

    head_from_background: Similarity
    coordinates: Coordinates = "scene"
    """What "background" means: the Gaussians' own coordinates, or those of the data before Nerfstudio normalised them."""


def read_placement(path: Path) -> Placement:
    """Reads a file of `--background-transform`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds no similarity.
    """
    content = _read_json(path, OPTION)
    if not isinstance(content, Mapping):
        raise UserError(f"{OPTION} {path}: holds no JSON object. {_EXPECTED}")
    coordinates = content.get("coordinates", "scene")
    unknown = [name for name in content if name not in ("matrix", "coordinates", *_PARTS)]
    mixed = "matrix" in content and any(name in content for name in _PARTS)
    if unknown or mixed or coordinates not in get_args(Coordinates) or not set(content) - {"coordinates"}:
        raise UserError(f"{OPTION} {path}: has {json.dumps(content)[:200]}. {_EXPECTED}")
    try:
        similarity = _similarity(content)
    except ValueError as error:
        raise UserError(f"{OPTION} {path}: {error}") from error
    return Placement(similarity, coordinates)


def write_placement(path: Path, head_from_scene: Similarity) -> None:
    """Writes a file of `--background-transform`, for the background's own coordinates."""
    numbers = {
        "scale": head_from_scene.scale,
        "rotation": list(head_from_scene.degrees),
        "translation": head_from_scene.translation.tolist(),
    }
    write_atomically(path, (json.dumps(numbers, indent=1) + "\n").encode())


def read_normalisation(run: Path) -> Similarity:
    """How a Nerfstudio run made its own coordinates of those of its data: scene_from_data.

    `scale * (transform @ x)`, transform being 3 x 4, as Nerfstudio's data parsers apply it to cameras.

    Raises:
        FileNotFoundError, ValueError: the run's file is missing or damaged.
    """
    path = run / NORMALISATION
    why = f'{OPTION} with "coordinates": "data" needs it'
    content = _read_json(path, why)
    try:
        rigid = Similarity.from_matrix(np.array([*content["transform"][:3], [0, 0, 0, 1]], dtype=np.float64))
        scaled = Similarity(scale=_positive(content["scale"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{why}: {path} is damaged ({type(error).__name__}: {error}); expected a 3 x 4 transform and a scale."
        ) from error
    return scaled @ rigid


def _similarity(content: Mapping[str, Any]) -> Similarity:
    if "matrix" in content:
        return Similarity.from_matrix(_numbers(content["matrix"], "matrix"))
    translation = _numbers(content.get("translation", [0, 0, 0]), "translation").tolist()
    degrees = _numbers(content.get("rotation", [0, 0, 0]), "rotation").tolist()
    if not all(isinstance(part, list) and len(part) == 3 for part in (translation, degrees)):
        raise UserError(f"translation {translation}, rotation {degrees}: expected three numbers each.")
    return Similarity.from_parts(translation, degrees, _positive(content.get("scale", 1.0)))


def _numbers(value: Any, name: str) -> np.ndarray:
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f'"{name}" is {str(value)[:100]}; expected numbers.') from error


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UserError(f'"scale" is {value!r}; expected a number above 0.')
    return float(value)


def _read_json(path: Path, why: str) -> Any:
    if not path.is_file():
        raise MissingFileError(f"{why}: {path}: no such file.")
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{why}: {path} is not valid JSON: {error}.") from error
