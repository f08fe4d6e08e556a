"""Damaged image files are told from whole ones by their ends, and all damage is found by decoding."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edit3dgs_ns.capture.image_damage import decoded_problem, quick_problem

SIZE = (23, 17)


def encoded(mode: str = "RGB", kind: str = "png", size: tuple[int, int] = SIZE) -> bytes:
    channels = len(mode)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_whole_files_pass(tmp_path: Path, mode: str) -> None:
    (path := tmp_path / "a.png").write_bytes(encoded(mode))
    assert quick_problem(path, SIZE) is None and decoded_problem(path, SIZE, "image") is None
    path.write_bytes(encoded(mode) + b"a note of some other program")
    assert quick_problem(path, SIZE) is None and decoded_problem(path, SIZE, "image") is None


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_every_truncation_is_noticed(tmp_path: Path, kind: str) -> None:
    whole = encoded(kind=kind)
    path = tmp_path / "a.img"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert quick_problem(path, SIZE) is not None, length


def test_what_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert quick_problem(path, SIZE) == decoded_problem(path, SIZE, "image") == "is missing"
    for content, expected in (
        (b"", "is empty"),
        (bytes(5000), "holds zeros"),
        (b"GIF no image at all", "cannot be read as an image"),
        (encoded(size=(17, 23)), "is 17 x 23 pixels; the capture's transforms say 23 x 17"),
        (encoded()[:-1], "is truncated"),
        (encoded()[:20] + b"x" + encoded()[21:], "the header of the PNG does not add up"),
    ):
        path.write_bytes(content)
        problem = quick_problem(path, SIZE)
        assert problem is not None and expected in problem
    path.unlink()
    path.mkdir()
    assert "cannot be read" in str(quick_problem(path, SIZE))


def test_damage_in_the_middle_needs_decoding(tmp_path: Path) -> None:
    whole = encoded()
    middle = len(whole) // 2
    (path := tmp_path / "a.png").write_bytes(whole[:middle] + bytes(200) + whole[middle + 200 :])
    assert quick_problem(path, SIZE) is None
    assert "cannot be decoded" in str(decoded_problem(path, SIZE, "image"))


@pytest.mark.parametrize(("value", "expected"), [(0, "all background"), (1, "values up to 1"), (255, None)])
def test_masks_have_a_foreground(tmp_path: Path, value: int, expected: str | None) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.pad(np.full((7, 13), value, np.uint8), 5)).save(path)
    problem = decoded_problem(path, SIZE, "mask")
    assert problem is None if expected is None else expected in str(problem)
    assert decoded_problem(path, SIZE, "image") is None
