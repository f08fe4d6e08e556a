"""An offset of the resting expression: what the synthetic truth adds, under blinks and speech, scaled and undone exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edit3dgs_ns.api.avatar import Avatar
from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.expression_offset import JAW_LIMIT, ExpressionOffset
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel, FlamePose
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.splats.head_rig import head_rig
from edit3dgs_ns.splats.rig import POSE_PARAMETERS, TrackedHead
from edit3dgs_ns.splats.rigged_gaussians import RiggedGaussians, offset_of
from edit3dgs_ns.synthetic.expression_edits import EXPRESSION_EDITS
from edit3dgs_ns.synthetic.identity import random_identity
from edit3dgs_ns.synthetic.motion import SEQUENCES, act
from edit3dgs_ns.synthetic.posing import Frame
from edit3dgs_ns.synthetic.true_edits import edited_frame
from tests.coloured_avatar import HEAD, coloured_gaussians

NAMES = HEAD.expression_names
assert NAMES is not None
FRONT = Camera.look_at((0.0, 0.0, 1.0), width=48, height=40)


def motion_from(frames: list[Frame], identity) -> FlameMotion:
    rows = {name: torch.from_numpy(np.stack([getattr(f, name) for f in frames])) for name in POSE_PARAMETERS}
    offset = torch.from_numpy(np.asarray(identity.static_offset, np.float32))
    rows = {name: value.float() for name, value in rows.items()}
    return FlameMotion(shape=torch.from_numpy(identity.shape).float(), static_offset=offset, **rows)


@pytest.fixture(scope="module")
def acted():
    """A person of the open head, and 12 acted frames."""
    identity = random_identity(5)
    return identity, act(identity.head, SEQUENCES[2], 12, seed=5)


@pytest.fixture
def avatar(acted) -> Avatar:
    """One coloured Gaussian on every face, moving as acted."""
    identity, frames = acted
    return Avatar(RiggedGaussians.from_files(coloured_gaussians(), motion_from(frames, identity), HEAD), HEAD)


def offset_for(edit: str) -> ExpressionOffset:
    return ExpressionOffset.of_actions(EXPRESSION_EDITS[edit].actions, NAMES)


@pytest.mark.parametrize("edit", list(EXPRESSION_EDITS))
def test_the_avatar_is_posed_as_the_truth_is(acted, edit: str) -> None:
    """The same vertices in every frame as a head that moves by the truth's edited frames."""
    identity, frames = acted
    flame = FlameModel.from_assets(identity.head.assets)
    head = TrackedHead(flame, motion_from(frames, identity))
    before = head.vertices(torch.arange(12))
    head.set_offset(offset_for(edit))
    truth = TrackedHead(flame, motion_from([edited_frame(f, edit, identity.head) for f in frames], identity))
    for index in range(12):
        expected, time = truth.vertices(torch.tensor([index]))[0], index / 11
        torch.testing.assert_close(head.vertices_at(time), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(head.vertices(torch.tensor([index]))[0], expected, rtol=0, atol=1e-6)
    assert (head.vertices(torch.arange(12)) - before).norm(dim=-1).max() > 2e-3
    torch.testing.assert_close(head.shown_motion().expr, truth.pose["expr"].detach(), rtol=0, atol=0)


def test_nothing_is_added_by_an_offset_of_zero_and_by_one_that_was_taken_away(avatar: Avatar) -> None:
    """Bit for bit; and half of an offset is the offset of half."""
    head, pose = avatar.gaussians.head, avatar.pose(3)
    before, frames = avatar.render(FRONT, 3), head.frames_of(pose)
    assert head.under_offset(pose) is pose
    head.set_offset(offset_for("smile"))
    smiling = avatar.render(FRONT, 3)
    assert np.abs(smiling - before).max() > 0.05
    head.set_offset(offset_for("smile"), scale=0.5)
    half = avatar.render(FRONT, 3)
    head.set_offset(offset_for("smile").scaled(0.5))
    np.testing.assert_array_equal(avatar.render(FRONT, 3), half)
    for offset, scale in ((None, 1.0), (offset_for("smile"), 0.0)):
        head.set_offset(offset, scale)
        np.testing.assert_array_equal(avatar.render(FRONT, 3), before)
        assert torch.equal(head.frames_of(pose).centre, frames.centre)
    head.set_offset(offset_for("smile"))
    np.testing.assert_array_equal(avatar.render(FRONT, 3), smiling)


def test_blinks_speech_and_what_is_beyond_the_limits(acted) -> None:
    """A closed eye keeps nothing of what holds it open; a motion beyond the limits stays where it is."""
    offset = offset_for("surprised")
    expr, jaw = torch.zeros(3, len(NAMES)), torch.zeros(3, 3)
    wide, blink = NAMES.index("eyeWideLeft"), NAMES.index("eyeBlinkLeft")
    expr[:, blink] = torch.tensor([0.0, 0.5, 1.0])
    expr[2, NAMES.index("browInnerUp")] = 1.2
    expr[2, NAMES.index("jawForward")] = -0.1
    jaw[:, 0] = torch.tensor([0.0, 0.2, 0.5])
    shown, opened = offset.added_to(expr, jaw)
    torch.testing.assert_close(shown[:, wide], 0.8 * torch.tensor([1.0, 0.5, 0.0]))
    assert torch.equal(shown[:, blink], expr[:, blink])
    assert shown[2, NAMES.index("browInnerUp")] == 1.2 and shown[2, NAMES.index("jawForward")] == -0.1
    torch.testing.assert_close(opened[:, 0], torch.tensor([0.14, 0.34, 0.5]))
    assert float(offset.added_to(expr, jaw + 0.15)[1][1, 0]) == pytest.approx(JAW_LIMIT)
    plain = ExpressionOffset(torch.full((100,), 2.0), torch.zeros(3))  # FLAME: no names, wider limits
    shown, _ = plain.added_to(torch.tensor([[0.0, 2.0, 4.0]]), torch.zeros(1, 3))
    assert shown.tolist() == [[2.0, 3.0, 4.0]]


def test_it_is_saved_and_an_older_avatar_has_none(avatar: Avatar, tmp_path: Path) -> None:
    avatar.gaussians.head.set_offset(offset_for("angry"), scale=0.75)
    read = Avatar.load(avatar.save(tmp_path / "a.ckpt"), device="cpu")
    assert float(read.gaussians.head.offset_scale) == 0.75
    np.testing.assert_array_equal(read.render(FRONT, 2), avatar.render(FRONT, 2))
    state = avatar.gaussians.state()
    older = {name: value for name, value in state.items() if "offset" not in name or "static" in name}
    assert len(state) == len(older) + 3
    assert RiggedGaussians.from_state(older, HEAD).head.offset is None and offset_of(older, NAMES) is None
    offset = offset_of(state, NAMES)
    assert offset is not None and torch.equal(offset.expr, offset_for("angry").scaled(0.75).expr)
    state["head.jaw_offset"] = torch.zeros(2)
    with pytest.raises(UserError, match=r"head\.jaw_offset has the shape"):
        RiggedGaussians.from_state(state, HEAD)


def test_files_for_other_programs_have_it_baked_in(avatar: Avatar, tmp_path: Path) -> None:
    """GaussianAvatars' pair renders as the avatar, and glTF's rig stands as the head does."""
    avatar.gaussians.head.set_offset(offset_for("smile"))
    avatar.export(tmp_path / "pair")
    pair = Avatar.load(tmp_path / "pair", device="cpu")
    assert pair.gaussians.head.offset is None
    np.testing.assert_allclose(pair.render(FRONT, 5), avatar.render(FRONT, 5), atol=1e-6)
    head, pose = avatar.gaussians.head, avatar.pose(5)
    rig, shown = head_rig(head, pose, NAMES), head.under_offset(pose)
    np.testing.assert_allclose(rig.target_values, shown.expr[0], atol=1e-7)


def test_a_pose_given_by_hand_is_shown_under_it(avatar: Avatar) -> None:
    """What a driver or a slider asks for is the motion; the offset comes on top."""
    head, rest = avatar.gaussians.head, avatar.pose(0, expression={}, jaw=(0.1, 0, 0))
    offset = offset_for("surprised")
    asked = FlamePose(
        **{
            **vars(rest),
            **dict(zip(("expr", "jaw_pose"), offset.added_to(rest.expr, rest.jaw_pose), strict=True)),
        }
    )
    expected = avatar.render(FRONT, asked)
    head.set_offset(offset)
    np.testing.assert_array_equal(avatar.render(FRONT, rest), expected)


def test_an_unknown_action_is_named() -> None:
    with pytest.raises(UserError, match="no facial action is called 'grin'"):
        ExpressionOffset.of_actions({"grin": 1.0}, load_assets().expression_names or ())
