"""Every split has its images, however many cameras there are."""

from __future__ import annotations

import pytest

from edit3dgs_ns.capture.cameras import arc_indices
from edit3dgs_ns.capture.layout import split_of


@pytest.mark.parametrize("cameras", range(1, 17))
def test_an_image_of_every_split_but_of_a_single_camera(cameras: int) -> None:
    numbers = arc_indices(cameras)
    val, held_out = (
        [split_of(number, held_out, cameras) for number in numbers] for held_out in (False, True)
    )
    assert held_out == ["test"] * cameras
    assert val.count("val") == (cameras > 1) and val.count("train") == max(cameras - 1, 1)
