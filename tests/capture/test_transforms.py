"""Paths in transforms files lead to files of the capture, whichever system wrote them, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from hypothesis import example, given
from hypothesis import strategies as st

from edit3dgs_ns.capture.transforms import FrameEntry, each_frame
from edit3dgs_ns.errors import UserError

SOURCE = Path("/data/capture/UNION10/transforms_train.json")
FRAME = {
    "timestep_index": 0, "fl_x": 50.0, "w": 8, "h": 8,
    "transform_matrix": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]],
}  # fmt: skip


def walked(text: str) -> PurePosixPath | None:
    """The path of a file inside the capture, folder by folder; None where it leads out of it."""
    steps = re.split(r"[/\\]", text)
    if steps[0] == "" or re.match("[A-Za-z]:", steps[0]):
        return None  # absolute
    place = ["data", "capture", "UNION10"]
    for step in steps:
        if step == "..":
            place = place[:-1]
        elif step not in ("", "."):
            place.append(step)
    inside = place[:2] == ["data", "capture"] and len(place) > 2
    return PurePosixPath("/", *place) if inside else None


@given(
    st.lists(
        st.sampled_from(["..", ".", "", "seq", "capture", "a b.png", "/", "\\", "C:"]), min_size=1, max_size=9
    )
)
@example(["..", "\\", "seq", "\\", "images", "\\", "0.png"])
@example(["..", "\\", "..", "\\", "x.png"])
def test_paths_of_both_systems(parts: list[str]) -> None:
    text = "".join(parts)
    if not text:
        return
    (found,) = each_frame({"frames": [{**FRAME, "file_path": text}]}, SOURCE)
    expected = walked(text)
    if expected is None:
        assert isinstance(found, UserError) and "leaves the capture" in str(found)
    else:
        assert isinstance(found, FrameEntry) and found.image == Path(expected)
