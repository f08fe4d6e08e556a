"""The tables of MediaPipe's landmarks: ours and FLAME's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.tracking.landmark_table import OPEN_HEAD_TABLE, ROWS, LandmarkTable, load_landmark_table

HEAD = load_assets()


def positions(table: LandmarkTable) -> np.ndarray:
    return np.einsum("lk,lkc->lc", table.barycentric, HEAD.v_template[HEAD.faces[table.faces]])


def test_the_embedded_table_names_the_places_that_mediapipe_documents() -> None:
    """MediaPipe's own numbering (face_mesh_connections): right and left are the subject's."""
    table = load_landmark_table(HEAD)
    assert np.array_equal(table.landmarks, np.arange(478))
    at = positions(table)
    regions = {name: HEAD.v_template[rows] for name, rows in HEAD.vertex_regions.items()}

    def away(landmark: int, region: str) -> float:
        return float(np.linalg.norm(regions[region] - at[landmark], axis=1).min())

    for landmark in (61, 291, 0, 17, 13, 14):
        assert away(landmark, "lips") < 0.003
    for landmark in (159, 145, 386, 374, 33, 133, 362, 263):
        assert away(landmark, "eyelids") < 0.003
    for landmark in (1, 4, 5):
        assert away(landmark, "nose") < 0.003
    for landmark in range(468, 478):
        assert away(landmark, "eye_right" if landmark < 473 else "eye_left") < 0.001
    assert at[33, 0] < at[133, 0] < 0 < at[362, 0] < at[263, 0], "x is to the subject's left"
    assert at[13, 1] > at[14, 1], "the upper lip is above the lower"
    assert at[152, 1] == at[:468, 1].min() or at[152, 1] < at[17, 1] - 0.015, "the chin is below the mouth"


def test_left_and_right_mirror_each_other() -> None:
    """The head's mean is symmetric, and so are the places within their spread."""
    table = load_landmark_table(HEAD)
    at = positions(table)
    for right, left in ((33, 263), (133, 362), (61, 291), (159, 386), (145, 374), (468, 473), (105, 334)):
        np.testing.assert_allclose(at[right] * (-1, 1, 1), at[left], atol=0.004)


def test_a_table_of_another_mesh_is_refused(tmp_path: Path) -> None:
    other = dataclasses.replace(HEAD, faces=HEAD.faces[:, [1, 2, 0]])
    with pytest.raises(UserError, match="belongs to another head model"):
        load_landmark_table(other, OPEN_HEAD_TABLE)


def flame_embedding(path: Path, **changes: np.ndarray) -> Path:
    content = {
        "lmk_face_idx": np.arange(105),
        "lmk_b_coords": np.full((105, 3), 1 / 3),
        "landmark_indices": np.arange(105) * 4,
    } | changes
    np.savez(path, **content)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"landmark_indices": np.arange(105) + 400}, "landmark numbers from 0 to 477"),
        ({"lmk_face_idx": np.arange(105) + 10**6}, "triangles below"),
        ({"lmk_b_coords": np.full((105, 3), np.nan)}, "finite numbers"),
        ({"lmk_face_idx": np.arange(3)}, "a triangle for each landmark"),
    ],
)
def test_damaged_tables_are_refused(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"expected {message}"):
        load_landmark_table(HEAD, flame_embedding(tmp_path / "table.npz", **changes))


def test_pickles_in_a_table_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    np.savez(path, lmk_face_idx=np.array([print], dtype=object))
    with pytest.raises(UserError, match="not a table of landmarks"):
        load_landmark_table(HEAD, path)


def test_saved_and_read_again(tmp_path: Path) -> None:
    table = load_landmark_table(HEAD)
    table.save(tmp_path / "again.npz", HEAD)
    again = load_landmark_table(HEAD, tmp_path / "again.npz")
    for name in (*ROWS, "by_face"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
