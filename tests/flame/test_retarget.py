"""Another person's motion on an actor's head: what comes from whom, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.motion_files import RecordedMotion
from edit3dgs_ns.flame.retarget import RetargetOptions, frame_places, retarget, smoothed
from edit3dgs_ns.flame.rotations import (
    axis_angle_to_matrix,
    axis_angle_to_quat,
    euler_xyz_to_axis_angle,
    inverse,
    mean_rotation,
    multiplied,
    quat_to_axis_angle,
)
from tests.flame.helpers import random_assets

HEAD = dataclasses.replace(random_assets(num_expr=6), name="flame")
NAMED = dataclasses.replace(HEAD, expression_names=tuple("abcdef"))


def moving(frames: int = 7, seed: int = 0, expr: int = 6, shape: int = 4, size: float = 0.3) -> FlameMotion:
    g = torch.Generator().manual_seed(seed)
    widths = {"rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}
    return FlameMotion(
        shape=torch.randn(shape, generator=g),
        static_offset=0.01 * torch.randn(HEAD.num_vertices, 3, generator=g),
        expr=torch.rand(frames, expr, generator=g),
        **{name: size * torch.randn(frames, width, generator=g) for name, width in widths.items()},
    )


def driver(**changes) -> RecordedMotion:
    return RecordedMotion(dataclasses.replace(moving(seed=5), **changes), Path("driver.npz"))


ACTOR = moving(frames=4, seed=1)


def turns(axis_angle: torch.Tensor) -> torch.Tensor:
    return axis_angle_to_matrix(axis_angle.double().unflatten(-1, (-1, 3)))


def test_the_actor_stays_who_it_is_and_moves_as_the_driver() -> None:
    recorded = driver()
    played, notes = retarget(recorded, ACTOR, HEAD)
    assert len(played) == 7 and notes == ()
    torch.testing.assert_close(played.shape, ACTOR.shape)
    torch.testing.assert_close(played.static_offset, ACTOR.static_offset)
    for name in ("expr", "jaw_pose", "eyes_pose", "neck_pose"):
        torch.testing.assert_close(getattr(played, name), getattr(recorded.motion, name))
    assert (played.rotation == played.rotation[0]).all() and (
        played.translation == played.translation[0]
    ).all()
    torch.testing.assert_close(played.translation[0], ACTOR.translation.mean(0))


def test_relative_head_pose_is_the_drivers_movement_from_the_actors_place() -> None:
    recorded = driver()
    played, _ = retarget(recorded, ACTOR, HEAD, RetargetOptions(head_pose="relative"))
    own, other = turns(mean_rotation(ACTOR.rotation)), turns(mean_rotation(recorded.motion.rotation))
    expected = turns(recorded.motion.rotation) @ other.transpose(-1, -2) @ own
    torch.testing.assert_close(turns(played.rotation), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(played.translation.mean(0), ACTOR.translation.mean(0))
    torch.testing.assert_close(played.translation.diff(dim=0), recorded.motion.translation.diff(dim=0))
    absolute, _ = retarget(recorded, ACTOR, HEAD, RetargetOptions(head_pose="absolute"))
    torch.testing.assert_close(absolute.rotation, recorded.motion.rotation)
    torch.testing.assert_close(absolute.translation, recorded.motion.translation)


def smiling(rest: float, smile: float, frames: int = 40) -> RecordedMotion:
    """A driver of the open head who smiles in nine frames of ten."""
    motion = FlameMotion.zeros(frames, len(OPEN.shape_names), len(OPEN.expression_names))
    motion.expr[:, SMILE] = smile
    motion.expr[: frames // 10, SMILE] = rest
    motion.expr[:, BROW] = 0.2
    return RecordedMotion(motion, Path("driver.npz"))


OPEN = load_assets(OPEN_HEAD_PATH)
SMILE, BROW = OPEN.expression_index("mouthSmileLeft"), OPEN.expression_index("browDownLeft")


def test_calm_frames_show_the_resting_face_of_a_driver_who_mostly_smiles() -> None:
    actor = FlameMotion.zeros(3, len(OPEN.shape_names), len(OPEN.expression_names))
    recorded = smiling(rest=0.1, smile=0.7)
    calm, _ = retarget(recorded, actor, OPEN, RetargetOptions(neutral="calm"))
    median, _ = retarget(recorded, actor, OPEN, RetargetOptions(neutral="median"))
    assert float(calm.expr[20, SMILE]) == pytest.approx(0.6) and float(calm.expr[0, SMILE]) < 1e-6
    assert float(calm.expr[20, BROW]) < 1e-6, "what is there in calm frames too is no expression"
    assert float(median.expr[20, SMILE]) < 1e-6
    grinning, _ = retarget(smiling(1.0, 1.0), actor, OPEN, RetargetOptions(neutral="calm"))
    assert grinning.expr[:, SMILE].min() > 0.4, "nobody's resting face is a grin"


def test_relative_to_the_neutral_a_resting_driver_shows_the_actors_resting_face() -> None:
    """Whatever a tracker calls a resting face: the actor's own comes out, and differences stay what they are."""
    recorded = driver()
    options = RetargetOptions(neutral="median", neutral_frame=3)
    played, _ = retarget(recorded, ACTOR, HEAD, options)
    torch.testing.assert_close(played.expr[3], ACTOR.expr.double().quantile(0.5, dim=0).float())
    torch.testing.assert_close(played.expr.diff(dim=0), recorded.motion.expr.diff(dim=0))
    for name in ("jaw_pose", "eyes_pose", "neck_pose"):
        rest = getattr(ACTOR, name).double().quantile(0.5, dim=0)
        torch.testing.assert_close(turns(getattr(played, name)[3]), turns(rest), atol=1e-5, rtol=0)
        then, now = turns(getattr(recorded.motion, name)), turns(getattr(played, name))
        torch.testing.assert_close(
            then[1:] @ then[:-1].transpose(-1, -2), now[1:] @ now[:-1].transpose(-1, -2), atol=1e-5, rtol=0
        )
    # An offset that the tracker adds to every frame makes no difference.
    shifted = driver(expr=recorded.motion.expr + 0.37)
    same, _ = retarget(shifted, ACTOR, HEAD, RetargetOptions(neutral="median"))
    other, _ = retarget(recorded, ACTOR, HEAD, RetargetOptions(neutral="median"))
    torch.testing.assert_close(same.expr, other.expr)


def test_named_expressions_stay_amounts() -> None:
    played, _ = retarget(driver(), ACTOR, NAMED, RetargetOptions(neutral="median"))
    assert played.expr.min() == 0 and played.expr.max() <= 1


def test_fewer_coefficients_are_filled_up_and_more_are_refused_with_the_numbers() -> None:
    few = driver(expr=torch.rand(7, 4))
    played, notes = retarget(few, ACTOR, HEAD)
    torch.testing.assert_close(played.expr, torch.cat([few.motion.expr, torch.zeros(7, 2)], 1))
    assert "4 expression coefficients for 6" in notes[0]
    small = dataclasses.replace(ACTOR, expr=ACTOR.expr[:, :5])
    with pytest.raises(
        ValueError, match=r"driver\.npz has 6 expression coefficients, the avatar was trained with 5"
    ):
        retarget(driver(), small, HEAD)
    empty = torch.cat([few.motion.expr, torch.zeros(7, 2)], dim=1)
    played, notes = retarget(driver(expr=empty), small, HEAD)
    assert played.expr.shape == (7, 5) and "left out" in notes[0]


@pytest.mark.parametrize(
    ("head", "changes", "found"),
    [
        (HEAD, {"static_offset": torch.zeros(11, 3)}, "11 vertices, this head has 37"),
        (HEAD, {"expr": torch.zeros(7, 8)}, "8 expression coefficients, this head has 6"),
        (HEAD, {"shape": torch.zeros(5)}, "5 shape coefficients, this head has 4"),
        (NAMED, {"expr": torch.zeros(7, 4)}, "4 expression coefficients, this head has 6"),
    ],
)
def test_another_rig_is_refused(head, changes, found) -> None:
    with pytest.raises(ValueError, match=rf"driver\.npz was made with another head model.*{found}"):
        retarget(driver(**changes), ACTOR, head)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RetargetOptions(smooth=-1.0), "--smooth -1.0"),
        (RetargetOptions(neutral_frame=2), "--neutral-frame 2 goes with --neutral median"),
        (RetargetOptions(neutral="median", neutral_frame=7), "has the frames 0 to 6"),
        (RetargetOptions(head_pose="relative"), "does not say how the head moves"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message) -> None:
    recorded = dataclasses.replace(driver(), has_head_pose=False)
    with pytest.raises(ValueError, match=message):
        retarget(recorded, ACTOR, HEAD, options)


def test_smoothing_keeps_what_is_even_and_calms_what_is_not() -> None:
    frames = 41
    ramp = torch.linspace(0, 1, frames)[:, None]
    even = dataclasses.replace(
        FlameMotion.zeros(frames, 4, 6),
        rotation=ramp * torch.tensor([0.4, -0.9, 2.0]),
        expr=ramp.repeat(1, 6),
    )
    calm = smoothed(even, 2.0)
    inside = slice(8, -8)  # the ends are held, so the ramp bends there
    torch.testing.assert_close(calm.expr[inside], even.expr[inside], atol=1e-5, rtol=0)
    torch.testing.assert_close(calm.rotation[inside], even.rotation[inside], atol=2e-4, rtol=0)
    still = smoothed(FlameMotion.zeros(5, 4, 6), 3.0)
    assert (still.expr == 0).all() and (still.jaw_pose == 0).all()
    wild = moving(frames=200, size=0.1)
    calm = smoothed(wild, 2.0)
    # White noise through a Gaussian of deviation d keeps 1 / (2 d sqrt(pi)) of its variance.
    kept = calm.jaw_pose.var() / wild.jaw_pose.var()
    assert 0.5 < kept * (2 * 2.0 * np.sqrt(np.pi)) < 1.6


@pytest.mark.parametrize("deviation", [0.1, 0.7, 2.0, 40.0])
def test_smoothing_is_the_mean_under_a_gaussian(deviation: float) -> None:
    """Written out for each frame: weights of the frames within three deviations, those beyond an end count as the end."""
    motion = moving(frames=9)
    smooth = smoothed(dataclasses.replace(motion, expr=motion.expr.double()), deviation).expr
    reach = max(1, math.ceil(3 * deviation))
    for frame in range(9):
        total, weights = np.zeros(6), 0.0
        for step in range(-reach, reach + 1):
            weight = math.exp(-(step**2) / (2 * deviation**2))
            total += weight * motion.expr[min(max(frame + step, 0), 8)].double().numpy()
            weights += weight
        np.testing.assert_allclose(smooth[frame], total / weights, rtol=0, atol=1e-15)


def test_quaternions_on_either_side_smooth_alike() -> None:
    """A rotation near half a turn changes the sign of its quaternion from frame to frame."""
    angles = torch.pi + 0.02 * torch.sin(torch.arange(30.0))
    motion = dataclasses.replace(
        FlameMotion.zeros(30, 4, 6), rotation=angles[:, None] * torch.tensor([[0.0, 1.0, 0.0]])
    )
    calm = smoothed(motion, 1.5)
    half_turn = turns(torch.tensor([0.0, torch.pi, 0.0]))
    assert (turns(calm.rotation) - half_turn).abs().max() < 0.03


def test_frames_of_a_video_lie_where_their_moment_is() -> None:
    np.testing.assert_allclose(frame_places(5, 25, 25), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(frame_places(5, 25, 50), np.arange(9) / 8)
    np.testing.assert_allclose(frame_places(5, 25, 25, speed=2), [0, 0.5, 1])
    assert frame_places(1, 25, 24).tolist() == [0]
    seconds = len(frame_places(740, 73 / 3, 24)) / 24
    assert abs(seconds - 740 / (73 / 3)) < 0.1
    for rates in ((0, 25, 1), (25, float("nan"), 1), (25, 25, -1)):
        with pytest.raises(ValueError, match="expected a positive number"):
            frame_places(5, *rates)
    with pytest.raises(ValueError, match="are 4e\\+09 of video; a video has at most 100,000"):
        frame_places(5, 25, 25, speed=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-9, 1e-6, 1e-3, 1.0, 3.14159, 6.0])
def test_matrices_and_their_gradients_are_those_of_the_power_series(size: float, dtype: torch.dtype) -> None:
    """exp(K) by its series in float64, with its gradient by automatic differentiation: exact at zero too."""

    def series(vector: torch.Tensor) -> torch.Tensor:
        x, y, z = vector
        zero = torch.zeros_like(x)
        cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
        total = term = torch.eye(3, dtype=vector.dtype)
        for n in range(1, 60):
            term = term @ cross / n
            total = total + term
        return total

    axes = torch.nn.functional.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    for vector in (size * axes).to(dtype):
        tolerance = {"rtol": 0, "atol": 1e-12 if dtype == torch.float64 else 2e-6}
        exact = series(vector.double())
        torch.testing.assert_close(axis_angle_to_matrix(vector).double(), exact, **tolerance)
        by_series = torch.autograd.functional.jacobian(series, vector.double())
        found = torch.autograd.functional.jacobian(axis_angle_to_matrix, vector)
        torch.testing.assert_close(found.double(), by_series, **tolerance)


@pytest.mark.parametrize("batch", [(), (1,), (3, 1, 2)])
def test_there_and_back(batch: tuple[int, ...]) -> None:
    vectors = torch.randn(*batch, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    quats = axis_angle_to_quat(vectors)
    torch.testing.assert_close(quat_to_axis_angle(-2.5 * quats), vectors)
    identity = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64).expand(*batch, 4)
    torch.testing.assert_close(multiplied(quats, inverse(quats)), identity)
    still = torch.zeros(*batch, 3, dtype=torch.float64, requires_grad=True)
    quat_to_axis_angle(multiplied(axis_angle_to_quat(still), identity)).sum().backward()
    torch.testing.assert_close(still.grad, torch.ones_like(still))


def test_rotations_agree_with_matrices() -> None:
    g = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, 20, 3, generator=g, dtype=torch.float64)
    product = quat_to_axis_angle(multiplied(axis_angle_to_quat(a), axis_angle_to_quat(b)))
    torch.testing.assert_close(
        axis_angle_to_matrix(product), axis_angle_to_matrix(a) @ axis_angle_to_matrix(b), atol=1e-6, rtol=0
    )
    x, y, z = (axis_angle_to_matrix(a * torch.eye(3, dtype=a.dtype)[k]) for k in range(3))
    torch.testing.assert_close(axis_angle_to_matrix(euler_xyz_to_axis_angle(a)), x @ y @ z, atol=1e-6, rtol=0)
    centre = torch.tensor([0.3, -1.0, 0.4], dtype=torch.float64)
    around = torch.cat([0.2 * a[:10], -0.2 * a[:10]])
    spread = quat_to_axis_angle(multiplied(axis_angle_to_quat(around), axis_angle_to_quat(centre)))
    torch.testing.assert_close(mean_rotation(spread), centre, atol=1e-6, rtol=0)
