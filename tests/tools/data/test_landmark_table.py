"""tools/data/landmark_table: what detections slide by is found again."""

from __future__ import annotations

import numpy as np
import pytest

from edit3dgs_ns.capture.cameras import Camera, intrinsics, look_at, project
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.tracking.landmark_table import face_terms, view_terms
from tools.data.landmark_table import solve
from tools.data.landmark_table.renders import Detection

HEAD = load_assets()
LANDMARKS, RENDERS, SIZE = 4, 300, 256


def test_displacements_by_view_and_face_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve, "NUM_LANDMARKS", LANDMARKS)
    rng = np.random.default_rng(0)
    faces = rng.choice(len(HEAD.faces), LANDMARKS, replace=False)
    barycentric = np.full((LANDMARKS, 3), 1 / 3)
    places = HEAD.v_template[HEAD.faces[faces]].mean(1).astype(np.float64)
    by_view, by_face = rng.normal(size=(LANDMARKS, 3, 5)), np.zeros((LANDMARKS, 3, face_terms(HEAD)))
    by_face[..., [5, -1]] = rng.normal(size=(LANDMARKS, 3, 2))  # two coefficients of the face matter
    terms, across, detections = [], [], []
    for _ in range(RENDERS):
        face = np.zeros(face_terms(HEAD))
        face[[5, -1]] = rng.normal(size=2) * (rng.random(2) < 1 / 3)
        place = places.mean(0) + np.append(rng.uniform(-0.4, 0.4, 2), 0.7)
        camera = Camera(look_at(place, places.mean(0)), intrinsics(SIZE, SIZE, 0.7, 0.3), SIZE, SIZE)
        towards = (place - places.mean(0)) / np.linalg.norm(place - places.mean(0))
        slid = 0.002 * (by_view @ view_terms(towards[None])[0] + by_face @ face)
        pixels, _ = project(places + slid, camera)
        detections.append(Detection(pixels, HEAD.v_template.astype(np.float64), np.eye(3), face, camera))
        terms.append(np.concatenate([[1], view_terms(towards[None])[0], face]))
        across.append(np.eye(3) - np.outer(towards, towards))
    found, spread = solve._sliding(HEAD, faces, barycentric, detections)
    # What is along the line of sight is not seen.
    true = 0.002 * np.concatenate([np.zeros((LANDMARKS, 3, 1)), by_view, by_face], axis=2)
    missed = np.einsum("nij,ljk,nk->nli", across, found - true, terms)
    slid = np.einsum("nij,ljk,nk->nli", across, true, terms)
    # The priors shrink it a little.
    assert np.linalg.norm(missed, axis=-1).mean() < 0.25 * np.linalg.norm(slid, axis=-1).mean()
    assert spread.max() < solve.UNMODELLED + 0.0003


def test_the_modes_are_the_displacements() -> None:
    rng = np.random.default_rng(1)
    by_face = rng.normal(size=(30, 3, solve.MODES)) @ rng.normal(size=(solve.MODES, 121))
    modes, shown = solve._modes(by_face)
    np.testing.assert_allclose(np.einsum("lir,rk->lik", modes, shown), by_face, atol=1e-9)
