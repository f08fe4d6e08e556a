"""FLAME's teeth on a head with FLAME's vertex and face counts and its lip rows (the positions are made up)."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from edit3dgs_ns.flame import FlameAssets, FlameModel, load_assets
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.teeth import LOWER_LIP, ROW, TEETH_ROWS, UPPER_LIP, add_teeth, has_flame_topology

from .flame_files import FACES, LOWER, UPPER, VERTICES, flame_arrays, flame_masks
from .helpers import random_assets


@pytest.fixture(scope="module")
def plain() -> FlameAssets:
    """FLAME as its file holds it, before teeth are added."""
    table = flame_arrays()
    return FlameAssets(
        v_template=table["v_template"].astype(np.float32),
        faces=table["f"].astype(np.int64),
        shapedirs=table["shapedirs"][..., :300].astype(np.float32),
        exprdirs=table["shapedirs"][..., 300:].astype(np.float32),
        posedirs=table["posedirs"].astype(np.float32),
        J_regressor=table["J_regressor"].astype(np.float32),
        parents=np.array([-1, 0, 1, 1, 1]),
        weights=table["weights"].astype(np.float32),
        source=Path("stand-in"),
    )


@pytest.fixture(scope="module")
def toothed(plain: FlameAssets) -> FlameAssets:
    return add_teeth(plain)


def test_the_stand_in_has_the_numbers_of_the_real_topology(plain: FlameAssets) -> None:
    assert (UPPER_LIP, LOWER_LIP) == (UPPER, LOWER) and len(set(UPPER + LOWER)) == 30
    assert (plain.num_vertices, len(plain.faces)) == (5023, 9976) == (VERTICES, FACES)
    edges = {frozenset(pair) for f in plain.faces.tolist() for pair in itertools.combinations(f, 2)}
    assert all(frozenset(pair) in edges for row in (UPPER, LOWER) for pair in itertools.pairwise(row))
    lips = flame_masks()["lips"]
    assert len(lips) == 254 and np.isin(UPPER + LOWER, lips).all()
    # The mask's border is elsewhere: a reader that took it for the ring would be wrong here too.
    inside = plain.faces[np.isin(plain.faces, lips).all(1)]
    pairs, count = np.unique(
        np.sort(inside[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)), axis=0, return_counts=True
    )
    assert len(pairs[count == 1]) and not np.isin(pairs[count == 1], UPPER + LOWER).any()


def test_every_row_follows_the_formula(plain: FlameAssets, toothed: FlameAssets) -> None:
    """DESIGN's formula, written out vertex by vertex in float64."""
    assert (toothed.num_vertices, len(toothed.faces)) == (5143, 10144)
    np.testing.assert_array_equal(toothed.v_template[:VERTICES], plain.v_template)
    rows = dict(zip(TEETH_ROWS, toothed.v_template[VERTICES:].reshape(8, ROW, 3), strict=True))
    v = plain.v_template.astype(np.float64)
    d = np.mean([np.linalg.norm(v[u] - v[w]) for u, w in zip(UPPER, LOWER, strict=True)])
    height = np.mean([v[i][1] for i in UPPER + LOWER])
    assert 0.005 < d < 0.012
    for i, (u, w) in enumerate(zip(UPPER, LOWER, strict=True)):
        x, z = (v[u] + v[w])[[0, 2]] / 2
        for name, row in rows.items():
            sign, lower = (-1, 0.4) if name.startswith("lower") else (1, 0.0)
            y = height + sign * (2.1 if "root" in name else 0.1) * d
            depth = z - 1.5 * d - lower * d - (d if name.endswith("back") else 0)
            np.testing.assert_allclose(row[i], [x, y, depth], atol=2e-7, err_msg=f"{name} {i}")


def test_directions_and_skinning(plain: FlameAssets, toothed: FlameAssets) -> None:
    for row in toothed.shapedirs[VERTICES:].reshape(8, ROW, 3, -1):
        for i in (0, 7, 14):
            mean = 0.5 * (plain.shapedirs[UPPER[i]] + plain.shapedirs[LOWER[i]])
            np.testing.assert_allclose(row[i], mean, atol=1e-7)
    assert not toothed.exprdirs[VERTICES:].any() and not toothed.posedirs[VERTICES:].any()
    assert not toothed.J_regressor[:, VERTICES:].any()
    joint = toothed.weights[VERTICES:].argmax(1).reshape(8, ROW)
    np.testing.assert_array_equal(toothed.weights[VERTICES:].sum(1), 1)
    assert (joint == [[2 if name.startswith("lower") else 1] for name in TEETH_ROWS]).all()


def test_the_upper_row_stays_and_the_lower_row_follows_the_jaw(toothed: FlameAssets) -> None:
    model = FlameModel.from_assets(toothed)
    zero = {name: torch.zeros(2, 3) for name in ("rotation", "neck_pose", "translation")}
    jaw = torch.tensor([[0.0, 0, 0], [0.4, 0, 0]])
    shut, opened = model(
        torch.zeros(3), None, jaw_pose=jaw, expr=torch.zeros(2, 2), eyes_pose=torch.zeros(2, 6), **zero
    )
    moved = (opened - shut).norm(dim=1)
    assert moved[toothed.vertex_regions["teeth_upper"]].max() < 1e-6
    assert moved[toothed.vertex_regions["teeth_lower"]].min() > 1e-3


def test_faces_look_outwards(toothed: FlameAssets) -> None:
    """Front, back and biting edge of the upper teeth, then of the lower ones: 28 faces each."""
    tri = toothed.v_template[toothed.faces[FACES:]]
    normals = np.cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0]).reshape(6, 28, 3)
    for side, down in ((0, True), (3, False)):
        front, back, edge = normals[side : side + 3]
        assert (front[:, 2] > 0).all() and (back[:, 2] < 0).all()
        assert ((edge[:, 1] < 0) if down else (edge[:, 1] > 0)).all()


def test_numbering_of_avatars_of_gaussian_avatars(toothed: FlameAssets) -> None:
    """Gaussians are bound to faces by number: these are some of GaussianAvatars' own."""
    faces = toothed.faces[FACES:] - VERTICES
    known = {
        0: [0, 31, 30], 14: [7, 8, 37], 28: [60, 75, 76], 56: [75, 30, 76], 84: [45, 46, 15], 98: [52, 23, 22],
        112: [90, 106, 105], 126: [97, 98, 112], 140: [105, 106, 45], 154: [112, 53, 52], 167: [118, 119, 59],
    }  # fmt: skip
    assert {number: faces[number].tolist() for number in known} == known
    assert len(np.unique(faces)) == 120
    rows = toothed.v_template[VERTICES:].reshape(8, ROW, 3)
    assert (np.diff(rows[..., 0], axis=1) < 0).all()  # from the subject's left to the right
    # Left and right mirror each other: the same triangles, counted from the other end.
    step, row = faces % ROW, faces // ROW
    mirrored = row * ROW + (ROW - 1 - step)
    assert {frozenset(f) for f in faces.tolist()} == {frozenset(f) for f in mirrored.tolist()}


def test_other_topologies_get_no_teeth(plain: FlameAssets) -> None:
    assert has_flame_topology(plain)
    faces = plain.faces.copy()
    faces[(faces == UPPER[4]).any(1)] = 0
    for other, message in (
        (random_assets(), "random: has 37 vertices, FLAME 5023"),
        (dataclasses.replace(plain, faces=plain.faces[:-1]), "has 9975 faces, FLAME 9976"),
        (dataclasses.replace(plain, faces=faces), "vertices 1735 and 1696 share no edge"),
        (load_assets(OPEN_HEAD_PATH), "teeth are added to FLAME's topology only"),
    ):
        assert not has_flame_topology(other)
        with pytest.raises(ValueError, match=f"(?i){message}"):
            add_teeth(other)
