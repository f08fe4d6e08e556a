"""Teeth on a model with FLAME's vertex count (its mouth drawn by the test)."""

import dataclasses

import numpy as np
import pytest
import torch

from edit3dgs_ns.flame import FlameModel
from edit3dgs_ns.flame.teeth import FLAME_VERTICES, ROW, TEETH_ROWS, add_teeth

from .helpers import random_assets


def mouth_assets(per_half=15):
    """5023 vertices; the first ones form a ring of lips: an outer and an inner ellipse with quads between."""
    assets = random_assets(FLAME_VERTICES, 3, 2)
    n = 2 * per_half + 2
    angle = np.pi - 2 * np.pi * np.arange(n) / n
    ring = np.stack([0.025 * np.cos(angle), 0.010 * np.sin(angle), 0.05 - 0.02 * np.cos(angle) ** 2], 1)
    v = assets.v_template.copy()
    v[:n], v[n : 2 * n] = ring, ring * [0.7, 0.3, 1.0]
    k, nxt = np.arange(n), (np.arange(n) + 1) % n
    faces = np.concatenate([np.stack([k, nxt, n + nxt], 1), np.stack([k, n + nxt, n + k], 1)])
    return dataclasses.replace(
        assets, v_template=v.astype(np.float32), faces=faces, face_regions={"lips": np.arange(len(faces))}
    )


@pytest.mark.parametrize("per_half", [15, 19])
def test_teeth_follow_the_design(per_half):
    plain = mouth_assets(per_half)
    toothed = add_teeth(plain)
    assert toothed.num_vertices == FLAME_VERTICES + 120
    assert len(toothed.faces) == len(plain.faces) + 168
    assert len(np.unique(toothed.faces[-168:])) == 120
    rows = dict(zip(TEETH_ROWS, toothed.v_template[-120:].reshape(8, ROW, 3), strict=True))
    upper, lower = rows["upper_edge"], rows["lower_edge"]
    assert np.ptp(upper[:, 1]) < 1e-6  # flattened
    gap = (upper[:, 1] - lower[:, 1]).mean() / 0.2
    assert gap > 0
    np.testing.assert_allclose(rows["upper_root"] - upper, [[0, 2 * gap, 0]] * ROW, atol=1e-6)
    np.testing.assert_allclose(rows["lower_root"] - lower, [[0, -2 * gap, 0]] * ROW, atol=1e-6)
    np.testing.assert_allclose(lower - upper, [[0, -0.2 * gap, -0.4 * gap]] * ROW, atol=1e-6)
    np.testing.assert_allclose(rows["upper_edge_back"] - upper, [[0, 0, -gap]] * ROW, atol=1e-6)
    if per_half == 15:  # the ring itself: its mean gap can be told independently
        ring = plain.v_template[: 2 * per_half + 2]
        up, low = ring[1 : per_half + 1], ring[per_half + 2 :][::-1]
        np.testing.assert_allclose(gap, np.linalg.norm(up - low, axis=1).mean(), rtol=1e-5)
        np.testing.assert_allclose(
            toothed.shapedirs[-120:-105],
            0.5 * (plain.shapedirs[1:16][::-1] + plain.shapedirs[17:32]),
            atol=1e-6,
        )
    assert (toothed.exprdirs[-120:] == 0).all() and (toothed.posedirs[-120:] == 0).all()


def test_the_upper_row_stays_and_the_lower_row_follows_the_jaw():
    toothed = add_teeth(mouth_assets())
    model = FlameModel.from_assets(toothed)
    z = torch.zeros(1, 3)
    args = {
        "expr": torch.zeros(1, 2),
        "rotation": z,
        "neck_pose": z,
        "eyes_pose": torch.zeros(1, 6),
        "translation": z,
    }
    shut = model(torch.zeros(3), None, jaw_pose=z, **args)[0]
    open_ = model(torch.zeros(3), None, jaw_pose=torch.tensor([[0.4, 0, 0]]), **args)[0]
    move = (open_ - shut).norm(dim=1)
    assert move[toothed.vertex_regions["teeth_upper"]].max() < 1e-6
    assert move[toothed.vertex_regions["teeth_lower"]].min() > 1e-3


def test_faces_look_outwards():
    """Front, back and biting edge of the upper teeth, then of the lower ones: 28 faces each."""
    toothed = add_teeth(mouth_assets())
    tri = toothed.v_template[toothed.faces[-168:]]
    normals = np.cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0]).reshape(6, 28, 3)
    for side, down in ((0, True), (3, False)):
        front, back, edge = normals[side : side + 3]
        assert (front[:, 2] > 0).all() and (back[:, 2] < 0).all()
        assert ((edge[:, 1] < 0) if down else (edge[:, 1] > 0)).all()


def test_numbering_of_avatars_of_gaussian_avatars():
    """Gaussians are bound to faces by number: these are some of GaussianAvatars' own."""
    toothed = add_teeth(mouth_assets())
    faces = toothed.faces[-168:] - FLAME_VERTICES
    known = {
        0: [0, 31, 30],
        14: [7, 8, 37],
        28: [60, 75, 76],
        56: [75, 30, 76],
        84: [45, 46, 15],
        98: [52, 23, 22],
    }
    known |= {
        112: [90, 106, 105],
        126: [97, 98, 112],
        140: [105, 106, 45],
        154: [112, 53, 52],
        167: [118, 119, 59],
    }
    assert {number: faces[number].tolist() for number in known} == known
    rows = toothed.v_template[-120:].reshape(8, ROW, 3)
    assert (np.diff(rows[..., 0], axis=1) < 0).all()  # from the head's left to its right
    # Left and right mirror each other: the same triangles, counted from the other end.
    step, row = faces % ROW, faces // ROW
    mirrored = row * ROW + (ROW - 1 - step)
    assert {frozenset(f) for f in faces.tolist()} == {frozenset(f) for f in mirrored.tolist()}


def test_guards():
    with pytest.raises(ValueError, match="has 37 vertices; teeth are added to FLAME's topology"):
        add_teeth(random_assets())
    with pytest.raises(ValueError, match=r"FLAME_masks\.pkl"):
        add_teeth(dataclasses.replace(mouth_assets(), face_regions={}))
