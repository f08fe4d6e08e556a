"""Files of `--background-transform`: what they mean, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edit3dgs_ns.runs.placement import OPTION, read_normalisation, read_placement, write_placement
from edit3dgs_ns.splats.similarity import Similarity

TURNED = Similarity.from_parts((0.4, -0.2, 0.7), (20.0, -130.0, 65.0), 1.7)


def test_a_placement_comes_back_from_its_file(tmp_path: Path) -> None:
    write_placement(tmp_path / "t.json", TURNED)
    read = read_placement(tmp_path / "t.json")
    np.testing.assert_allclose(read.head_from_background.matrix, TURNED.matrix, atol=1e-9)
    assert read.coordinates == "scene"
    (tmp_path / "m.json").write_text(json.dumps({"matrix": TURNED.matrix.tolist(), "coordinates": "data"}))
    read = read_placement(tmp_path / "m.json")
    np.testing.assert_allclose(read.head_from_background.matrix, TURNED.matrix, atol=1e-12)
    assert read.coordinates == "data"


def _with(row: int, column: int, value: float) -> list[list[float]]:
    matrix = np.eye(4)
    matrix[row, column] = value
    return matrix.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"matrix": _with(0, 0, 1.5)}, "it stretches by 1.5, 1, 1 along three axes"),
        ({"matrix": _with(0, 1, 0.2)}, "no shear"),
        ({"matrix": _with(0, 0, -1)}, "it mirrors the scene"),
        ({"matrix": _with(3, 0, 1)}, "its last row is"),
        ({"matrix": np.zeros((4, 4)).tolist()}, "its last row is"),
        ({"matrix": _with(0, 3, math.nan)}, "4 x 4 finite numbers"),
        ({"matrix": [[1, 2], [3]]}, "expected numbers"),
        ({"matrix": np.eye(4).tolist(), "scale": 2}, "and nothing else"),
        ({"translation": [1, 2]}, "three numbers each"),
        ({"rotation": 90}, "three numbers each"),
        ({"scale": 0}, "expected a number above 0"),
        ({"scale": -1}, "expected a number above 0"),
        ({"translation": [0, math.inf, 0]}, "three finite numbers"),
        ({"rotate": [0, 0, 0]}, "and nothing else"),
        ({"scale": 1, "coordinates": "world"}, '"scene" or "data"'),
        ({}, "and nothing else"),
        ([1, 2], "holds no JSON object"),
    ],
)
def test_what_is_no_similarity_is_refused(content, message: str, tmp_path: Path) -> None:
    path = tmp_path / "place.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        read_placement(path)
    assert f"{OPTION} {path}" in str(error.value)


def test_placements_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.json: no such file"):
        read_placement(tmp_path / "nothing.json")
    (tmp_path / "half.json").write_text('{"scale": 1')
    with pytest.raises(ValueError, match=r"half\.json is not valid JSON"):
        read_placement(tmp_path / "half.json")


def test_nerfstudios_normalisation_is_what_it_does_to_cameras(tmp_path: Path) -> None:
    """By Nerfstudio's own formula: first the transform, then the scale."""
    rigid = replace(TURNED, scale=1.0).matrix[:3]
    (tmp_path / "dataparser_transforms.json").write_text(
        json.dumps({"transform": rigid.tolist(), "scale": 0.3})
    )
    point = np.array([0.3, -1.2, 4.0, 1.0])
    expected = 0.3 * (rigid @ point)
    np.testing.assert_allclose((read_normalisation(tmp_path).matrix @ point)[:3], expected, atol=1e-12)
    (tmp_path / "dataparser_transforms.json").write_text('{"scale": 0.3}')
    with pytest.raises(ValueError, match=r"dataparser_transforms\.json is damaged"):
        read_normalisation(tmp_path)
