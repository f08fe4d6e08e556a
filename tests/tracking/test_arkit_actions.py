"""ARKit's coefficients on head models of FLAME's kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edit3dgs_ns.flame.arkit import ARKIT_NAMES, JAW_OPEN
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH, FlameAssets
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.tracking.arkit_actions import NOT_SEEN, ArkitActions, arkit_actions
from edit3dgs_ns.tracking.driving import drive, open_driver
from edit3dgs_ns.tracking.template_registration import face_vertices
from tests.flame.open_head_as_flame import another_face, write_as_flame

HEAD = load_assets(OPEN_HEAD_PATH)
HARDLY_SEEN = ("eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight")
"""In and out move the lids alike, and by tenths of a millimetre."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def posed(head: FlameAssets, motion: FlameMotion) -> np.ndarray:
    return FlameModel.from_assets(head).shaped(motion.shape).posed(motion.pose()).numpy()


def face_motion(head: FlameAssets, actions: ArkitActions) -> FlameMotion:
    """Each action in full, one a frame."""
    motion = FlameMotion.zeros(len(ARKIT_NAMES), head.shapedirs.shape[2], head.exprdirs.shape[2])
    motion.expr[:], motion.jaw_pose[:] = actions.expr, actions.jaw
    return motion


def missed(head: FlameAssets, actions: ArkitActions) -> np.ndarray:
    """Share of each action's displacement of the face that `head`, with the open head's vertices, does otherwise."""
    face = face_vertices(HEAD)
    true, found = (
        posed(h, face_motion(h, a))[:, face] for h, a in ((HEAD, arkit_actions(HEAD)), (head, actions))
    )
    true, found = true - HEAD.v_template[face], found - head.v_template[face]
    return np.linalg.norm(found - true, axis=(1, 2)) / np.maximum(np.linalg.norm(true, axis=(1, 2)), 1e-6)


SEEN = [n for n, name in enumerate(ARKIT_NAMES) if name not in NOT_SEEN + HARDLY_SEEN]


def test_each_action_comes_back_on_the_open_heads_own_shape(tmp_path: Path) -> None:
    flame = load_assets(write_as_flame(tmp_path / "same.npz"))
    actions = arkit_actions(flame)
    for number in SEEN:
        name, expected = ARKIT_NAMES[number], np.zeros(52)
        if name != "jawOpen":
            expected[HEAD.expression_index(name)] = 1
        np.testing.assert_allclose(actions.expr[number], expected, atol=0.05, err_msg=name)
        opened = JAW_OPEN if name == "jawOpen" else 0.0
        np.testing.assert_allclose(actions.jaw[number], [opened, 0, 0], atol=0.01, err_msg=name)
    assert not actions.expr[ARKIT_NAMES.index("tongueOut")].any()


@pytest.mark.parametrize("num_expr", [52, 100])
def test_actions_are_mixtures_of_whatever_expressions_there_are(num_expr: int, tmp_path: Path) -> None:
    flame = load_assets(write_as_flame(tmp_path / "mixed.npz", num_expr=num_expr))
    assert flame.exprdirs.shape[2] == num_expr
    actions = arkit_actions(flame)
    assert missed(flame, actions)[SEEN].max() < 0.06 and actions.expr.abs().max() <= 3.0


def test_few_expressions_do_what_they_can(tmp_path: Path) -> None:
    flame = load_assets(write_as_flame(tmp_path / "few.npz", num_expr=20))
    share = missed(flame, arkit_actions(flame))[SEEN]
    assert np.median(share) < 0.85 and share.max() <= 1.05, "never worse than nothing"
    assert share[SEEN.index(ARKIT_NAMES.index("jawOpen"))] < 0.05, "the jaw is a joint"


def test_a_recording_drives_another_face_of_another_mesh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live Link Face's JSON on a finer mesh of another person: the face moves as the open head's does."""
    shape = another_face(2, 0.0)
    flame = load_assets(write_as_flame(tmp_path / "flame.npz", shape, num_expr=52, finer=True))
    frames = [
        {"jawOpen": 0.6, "mouthSmileLeft": 0.5},
        {"eyeBlinkLeft": 1.0, "eyeLookUpRight": 0.8, "browInnerUp": 0.7},
    ]
    (tmp_path / "take.json").write_text(
        json.dumps([dict.fromkeys(ARKIT_NAMES, 0.0) | frame for frame in frames])
    )
    recorded = open_driver(tmp_path / "take.json", flame).recorded
    assert "51 move FLAME's expression and jaw" in recorded.notes[0] and not recorded.has_head_pose
    actor = FlameMotion.zeros(1, flame.shapedirs.shape[2], 52)
    played, _ = drive(recorded, actor, flame)
    found = posed(flame, played) - flame.v_template
    own = open_driver(tmp_path / "take.json", HEAD).recorded.motion
    true = posed(HEAD, own) - HEAD.v_template
    torch.testing.assert_close(played.eyes_pose, own.eyes_pose)
    # The finer mesh has the open head's vertices in another order: the nearest one at rest.
    from scipy.spatial import cKDTree

    face = face_vertices(HEAD)
    same = cKDTree(flame.v_template).query(shape[face])[1]
    missed_by = np.linalg.norm(found[:, same] - true[:, face], axis=2)
    assert missed_by.mean() < 0.1 * np.linalg.norm(true[:, face], axis=2).mean()
    monkeypatch.setattr("edit3dgs_ns.tracking.arkit_actions.solve_actions", None)  # it is kept
    open_driver(tmp_path / "take.json", flame)
