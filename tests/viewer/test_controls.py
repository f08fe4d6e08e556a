"""What the viewer's controls do, without a browser and without an avatar."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.viewer.compare import wiped
from edit3dgs_ns.viewer.layers import NO_REGION, Palette
from edit3dgs_ns.viewer.pose import pose_sliders, posed_by_hand
from edit3dgs_ns.viewer.text import image_element, plain
from edit3dgs_ns.viewer.timeline import Timeline, time_of
from edit3dgs_ns.viewer.worker import Worker
from tests.viewer.stepwise_session import StepwiseSession, until

# -- frames and times --------------------------------------------------------------------------------------------------


@given(frames=st.integers(1, 5000), data=st.data())
def test_every_frame_has_its_own_time_in_0_to_1(frames, data):
    frame = data.draw(st.integers(0, frames - 1))
    place = time_of(frame, frames)
    assert 0 <= place <= 1
    assert place == pytest.approx(frame / (frames - 1) if frames > 1 else 0.0)


def test_outside_of_the_motion_it_stops_at_the_ends():
    assert (time_of(-3, 10), time_of(99, 10)) == (0.0, 1.0)


def test_playing_goes_round_at_the_speed_that_is_set_and_pausing_stays():
    timeline = Timeline(frames=10, fps=25)
    timeline.seek(3, now=0.0)
    assert timeline.frame_at(100.0) == 3, "paused"
    timeline.play(now=100.0)
    assert [timeline.frame_at(100.0 + t) for t in (0.0, 0.041, 0.2, 0.401)] == [3, 4, 8, 3]
    timeline.set_speed(2.0, now=100.201)  # at frame 8
    assert [timeline.frame_at(100.201 + t) for t in (0.0, 0.021, 0.041)] == [8, 9, 0]
    timeline.pause(now=100.222)
    assert timeline.frame_at(999.0) == 9 and not timeline.playing
    assert timeline.time_at(999.0) == 1.0


def test_seeking_while_it_plays_goes_on_from_there_and_another_motion_begins_at_its_start():
    timeline = Timeline(frames=100, fps=10)
    timeline.play(now=0.0)
    timeline.seek(50, now=1.0)
    assert timeline.frame_at(1.25) == 52
    timeline.set_frames(4, now=2.0)
    assert timeline.frame_at(2.0) == 0 and timeline.frame_at(2.55) == 1
    timeline.seek(99, now=3.0)
    assert timeline.frame_at(3.0) == 3


# -- posing by hand ----------------------------------------------------------------------------------------------------


def _pose(coefficients: int = 4) -> FlamePose:
    generator = torch.Generator().manual_seed(0)

    def row(width: int) -> torch.Tensor:
        return torch.randn(1, width, generator=generator)

    return FlamePose(row(coefficients), row(3), row(3), row(3), row(6), row(3))


@pytest.fixture
def sliders():
    expressions = torch.tensor([[0.0, 0.1, 2.5, 0.0], [0.0, -0.2, 0.0, 0.0]])
    directions = torch.zeros(5, 3, 4)
    directions[0, 0] = torch.tensor([1.0, 1.0, 0.01, 2.0])
    return pose_sliders(expressions, directions, ["jawOpen", "mouthSmileLeft", "browDown", "cheekPuff"])


def test_the_expressions_that_move_the_motion_most_come_first(sliders):
    # Reach times use: 0.2 * 1, 2.5 * 0.01; those never used follow by reach.
    named = [slider.label for slider in sliders if slider.key.startswith("expr")]
    assert named == ["mouth smile left", "brow down", "cheek puff", "jaw open"]
    (brow,) = [slider for slider in sliders if slider.label == "brow down"]
    assert (brow.low, brow.high) == (-3.0, 3.0), "it reaches what the motion reaches"


def test_sliders_add_to_the_motion_in_their_units_and_touch_nothing_else(sliders):
    pose = _pose()
    moved = posed_by_hand(pose, sliders, {"jaw": 30.0, "gaze_side": -10.0, "expr1": 0.5})
    expected = {
        "jaw_pose": pose.jaw_pose + torch.tensor([[np.pi / 6, 0, 0]]),
        "eyes_pose": pose.eyes_pose + torch.deg2rad(torch.tensor([[0, -10.0, 0, 0, -10.0, 0]])),
        "expr": pose.expr + torch.tensor([[0, 0.5, 0, 0]]),
    }
    for name in ("expr", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation"):
        torch.testing.assert_close(getattr(moved, name), expected.get(name, getattr(pose, name)).float())
    assert posed_by_hand(pose, sliders, {"jaw": 0.0}) is pose


def test_a_motion_with_fewer_coefficients_is_left_alone_beyond_them(sliders):
    pose = _pose(2)
    torch.testing.assert_close(posed_by_hand(pose, sliders, {"expr3": 1.0}).expr, pose.expr)


# -- before and after --------------------------------------------------------------------------------------------------


@given(width=st.integers(1, 40), wipe=st.floats(-0.5, 1.5))
def test_a_wipe_takes_each_pixel_from_one_of_the_two(width, wipe):
    before, after = torch.rand(3, width, 3), torch.rand(3, width, 3)
    result = wiped(before, after, wipe)
    border = round(min(max(wipe, 0.0), 1.0) * width)
    for row in range(3):
        for column in range(width):  # the obvious way
            source = before if column < border else after
            assert torch.equal(result[row, column], source[row, column])


def test_the_line_of_a_wipe_is_one_column_and_only_between_the_two():
    before, after = torch.zeros(2, 10, 3), torch.ones(2, 10, 3)
    drawn = wiped(before, after, 0.5, line=True)
    assert (
        (drawn[:, :5] == 0).all()
        and (drawn[:, 6:] == 1).all()
        and (drawn[:, 5] > 0).all()
        and (drawn[:, 5] < 1).all()
    )
    assert torch.equal(wiped(before, after, 0.0, line=True), after)
    assert torch.equal(wiped(before, after, 1.0, line=True), before)
    with pytest.raises(ValueError, match="differ in size"):
        wiped(before, after[:, :4], 0.5)


def test_the_smaller_of_two_regions_that_overlap_shows():
    palette = Palette.of({"face": np.arange(8), "nose": np.array([2, 3]), "none": np.array([], int)}, 10)
    assert list(palette.colors) == ["face", "nose"]
    for face in range(10):
        name = "nose" if face in (2, 3) else "face" if face < 8 else None
        expected = palette.colors[name] if name else NO_REGION
        torch.testing.assert_close(palette.of_faces[face], torch.tensor(expected))


# -- text --------------------------------------------------------------------------------------------------------------


def test_no_text_becomes_markup_or_code():
    assert plain("Make {him} <b>older</b>") == r"Make \{him\} \<b\>older\</b\>"
    assert plain("a_b *c* [d](e)\n\n# f") == r"a\_b \*c\* \[d\]\(e\) \# f"
    assert '"}' not in image_element(np.zeros((2, 2, 3), np.uint8), 'x"} {alert(1)}').split("src=")[
        0
    ].replace('"100%"}}', "")


# -- the thread that edits ---------------------------------------------------------------------------------------------


def test_an_edit_runs_to_its_end_and_nothing_else_can_begin_meanwhile():
    reports, session = [], StepwiseSession()
    worker = Worker(reports.append)
    assert not worker.pause(True), "nothing to pause"
    assert worker.edit(lambda: session)
    assert not worker.edit(lambda: session) and not worker.preview(lambda: "never")
    session.let.release(3)
    assert worker.wait(20)
    assert (session.done, session.end) == (3, "kept")
    assert [r.state for r in reports] == ["editing"] * 4 + ["idle"] and not reports[-1].failed
    assert worker.preview(lambda: "seen") and worker.wait(20)
    assert worker.status.message == "seen"


def test_a_paused_edit_does_no_step_until_it_goes_on():
    session = StepwiseSession()
    worker = Worker(lambda status: None)
    worker.edit(lambda: session)
    session.let.release()
    until(lambda: session.done == 1)
    assert worker.pause(True)
    session.let.release()  # the step that it was at
    until(lambda: worker.status.state == "paused")
    session.let.release()
    time.sleep(0.2)
    assert session.done == 2
    assert worker.pause(False)
    assert worker.wait(20)
    assert (session.done, session.end) == (3, "kept")


@pytest.mark.parametrize("paused", [False, True])
def test_undo_while_it_edits_gives_the_edit_up(paused):
    session = StepwiseSession()
    worker = Worker(lambda status: None)
    worker.edit(lambda: session)
    if paused:
        worker.pause(True)
        session.let.release()
        until(lambda: worker.status.state == "paused")
    else:
        until(lambda: worker.status.session is session)
    assert worker.revert(lambda: pytest.fail("the version before is not to be undone as well"))
    session.let.release()
    assert worker.wait(20)
    assert session.end == "abandoned" and session.done < 3


def test_what_goes_wrong_is_said_and_the_avatar_is_as_it_was(capsys):
    class Broken(StepwiseSession):
        def advance(self) -> None:
            raise RuntimeError("out of memory")

    session = Broken()
    worker = Worker(lambda status: None)
    worker.edit(lambda: session)
    assert worker.wait(20)
    assert session.end == "abandoned" and worker.status.failed and "out of memory" in worker.status.message
    assert "Traceback" in capsys.readouterr().err
    assert worker.preview(lambda: "still alive") and worker.wait(20)
    assert worker.status.message == "still alive"
