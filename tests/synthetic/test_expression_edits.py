"""Edits of expression: offsets of the motion within limits, under blinks and speech."""

from __future__ import annotations

import numpy as np
import pytest

from edit3dgs_ns.flame.expression_offset import JAW_LIMIT
from edit3dgs_ns.synthetic.canonical import LABELS
from edit3dgs_ns.synthetic.expression_edits import EXPRESSION_EDITS
from edit3dgs_ns.synthetic.motion import FACES, SEQUENCES, act, face
from edit3dgs_ns.synthetic.replay import Replay
from edit3dgs_ns.synthetic.scene import Scene
from edit3dgs_ns.synthetic.true_edits import TRUE_EDITS, edited_frame, edited_person

KEYS = list(EXPRESSION_EDITS)


@pytest.mark.parametrize("edit", KEYS)
def test_offsets_stay_within_limits_and_speech_plays_on(replay: Replay, edit: str) -> None:
    head = replay.identity.head
    frames = act(head, SEQUENCES[2], 40, seed=5)
    edited = [edited_frame(frame, edit, head) for frame in frames]
    expr = np.stack([frame.expr for frame in edited])
    assert expr.min() >= 0.0 and expr.max() <= 1.0
    jaw, spoken = (np.array([f.jaw_pose[0] for f in each]) for each in (edited, frames))
    assert (jaw >= spoken).all() and jaw.max() <= JAW_LIMIT + 1e-6
    assert np.corrcoef(jaw, spoken)[0, 1] > 0.98
    changed = [
        name for name, amount in EXPRESSION_EDITS[edit].actions.items() if name != "jaw" and amount > 0.5
    ]
    names = head.assets.expression_names
    assert names is not None
    columns = [names.index(name) for name in changed]
    gain = expr[:, columns] - np.stack([frame.expr for frame in frames])[:, columns]
    assert gain.mean() > 0.3
    for before, after in zip(frames, edited, strict=True):
        for name in ("rotation", "neck_pose", "eyes_pose", "translation"):
            assert np.array_equal(getattr(before, name), getattr(after, name))


@pytest.mark.parametrize("edit", KEYS)
def test_blinks_close_the_eyes_as_before(replay: Replay, edit: str) -> None:
    """No more of the eyeballs is seen through closed lids than without the edit."""
    camera, head = replay.cameras[8], replay.identity.head

    def seen(edit: str | None, name: str | None) -> int:
        frame = edited_frame(face(head, dict(FACES[name]) if name else {}), edit, head)
        hits = Scene(replay.identity, frame).trace(camera.c2w, camera.K, camera.width, camera.height, 4)
        return int(np.isin(hits.labels, [LABELS["eyes"], LABELS["iris"]]).sum())

    assert seen(edit, "shut") <= seen(None, "shut") + 1
    assert seen(edit, None) > 10


def test_the_face_moves_as_the_words_say(replay: Replay) -> None:
    """Corners of the mouth go up in a smile, brows up in surprise and down in anger, by millimetres."""
    head = replay.identity.head
    regions, rest = head.assets.vertex_regions, head.assets.v_template
    neutral = face(head, {})
    own = Scene(replay.identity, neutral).head_vertices
    lips = regions["lips"]
    corner = lips[rest[lips, 0] > rest[lips, 0].max() - 0.002]

    def rise(edit: str, index: np.ndarray) -> float:
        moved = Scene(replay.identity, edited_frame(neutral, edit, head)).head_vertices
        return float((moved - own)[index, 1].mean())

    assert rise("smile", corner) > 0.002
    assert rise("surprised", regions["brows"]) > 0.003
    assert rise("angry", regions["brows"]) < -0.002


def test_one_door_for_all_edits(replay: Replay) -> None:
    """Edits of expression leave the person, all others leave the frame; an unknown one is named."""
    frame = face(replay.identity.head, {})
    for edit in TRUE_EDITS:
        person = edited_person(replay.identity, edit)
        moved = edited_frame(frame, edit, person.head)
        assert (person is replay.identity) == (edit in EXPRESSION_EDITS) == (moved is not frame)
    with pytest.raises(ValueError, match="no true images of the edit 'younger'; there are some of older"):
        edited_person(replay.identity, "younger")
