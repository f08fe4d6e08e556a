"""Landmarks of head models that are not the open head: carried over, or FLAME's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH, FlameAssets
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.tracking.detector import FIRST_IRIS
from edit3dgs_ns.tracking.landmark_table import LandmarkTable, load_landmark_table
from edit3dgs_ns.tracking.landmark_transfer import landmark_table_of, nearest_on_mesh
from edit3dgs_ns.tracking.template_registration import eyeball_faces
from tests.flame.helpers import random_assets
from tests.flame.open_head_as_flame import another_face, write_as_flame

HEAD = load_assets(OPEN_HEAD_PATH)
TABLE = load_landmark_table(HEAD)
WARP = 0.001


def positions(table: LandmarkTable, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    return np.einsum("lk,lkc->lc", table.barycentric, vertices[faces[table.faces]])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_landmarks_are_found_on_another_face_of_another_mesh(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person drawn at random, bent by a millimetre, with four times the triangles in another order."""
    face = another_face(1, WARP)
    flame = load_assets(write_as_flame(tmp_path / "flame.npz", face, finer=True))
    table = landmark_table_of(flame)
    away = np.linalg.norm(
        positions(table, flame.v_template, flame.faces) - positions(TABLE, face, HEAD.faces), axis=1
    )
    assert np.median(away[:FIRST_IRIS]) < 0.0012 and np.quantile(away[:FIRST_IRIS], 0.95) < 0.003
    assert away[FIRST_IRIS:].max() < 0.0015
    assert away[[159, 145, 386, 374, 13, 14, 33, 263]].max() < 0.002, "lids and lips"
    before = np.linalg.norm(
        positions(TABLE, HEAD.v_template, HEAD.faces) - positions(TABLE, face, HEAD.faces), axis=1
    )
    assert np.median(away) < 0.5 * np.median(before), "the open head's own places would do as well"
    eyes = eyeball_faces(flame)[table.faces]
    assert (
        eyes[FIRST_IRIS : FIRST_IRIS + 5, 1].all()
        and eyes[FIRST_IRIS + 5 :, 0].all()
        and not eyes[:FIRST_IRIS].any()
    )
    monkeypatch.setattr("edit3dgs_ns.tracking.landmark_transfer.register", None)  # calling it would fail
    again = landmark_table_of(flame)
    np.testing.assert_array_equal(again.faces, table.faces)


def embedding(path: Path, **changes: np.ndarray) -> Path:
    numbers = np.arange(105) * 4
    content = {
        "lmk_face_idx": TABLE.faces[numbers],
        "lmk_b_coords": TABLE.barycentric[numbers],
        "landmark_indices": numbers,
    } | changes
    np.savez(path, **content)
    return path


def test_flames_own_embedding_is_used_where_it_lies_beside_and_gets_irises(
    cache: Path, tmp_path: Path
) -> None:
    flame = load_assets(write_as_flame(tmp_path / "flame.npz"))
    embedding(tmp_path / "mediapipe_landmark_embedding.npz", lmk_face_idx=np.full(105, 7))
    table = landmark_table_of(flame)
    assert (table.faces[:105] == 7).all() and np.array_equal(table.landmarks[105:], np.arange(468, 478))
    at = positions(table, flame.v_template, flame.faces)[105:]
    true = positions(TABLE, HEAD.v_template, HEAD.faces)[FIRST_IRIS:]
    assert np.linalg.norm(at - true, axis=1).max() < 0.0015


def test_a_mesh_that_is_no_head_is_said(cache: Path) -> None:
    blob = dataclasses.replace(random_assets(num_vertices=200), name="flame", source=Path("blob.pkl"))
    with pytest.raises(
        UserError, match=r"blob\.pkl: the open head cannot be laid on this mesh .*landmark_embedding"
    ):
        landmark_table_of(blob)


def test_the_nearest_point_of_a_mesh_is_that_of_an_exhaustive_search() -> None:
    rng = np.random.default_rng(4)
    head: FlameAssets = HEAD
    points = head.v_template[rng.integers(0, 3000, 20)] + rng.normal(0, 0.003, (20, 3))
    normals = np.zeros((20, 3))  # nothing is asked about directions
    vertices = head.v_template.astype(np.float64)
    faces, barycentric = nearest_on_mesh(points, normals, vertices, head.faces, np.arange(len(head.faces)))
    found = np.einsum("nk,nkc->nc", barycentric, vertices[head.faces[faces]])
    assert barycentric.min() >= 0 and np.allclose(barycentric.sum(1), 1)
    import trimesh

    _, distance, _ = trimesh.proximity.closest_point(
        trimesh.Trimesh(vertices, head.faces, process=False), points
    )
    np.testing.assert_allclose(np.linalg.norm(found - points, axis=1), distance, atol=1e-7)
