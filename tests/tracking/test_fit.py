"""The fit recovers heads from landmarks that are projected from known parameters."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.tracking.fit import HeadFit, Observations, TrackingState, project_points
from edit3dgs_ns.tracking.landmark_table import load_landmark_table
from edit3dgs_ns.tracking.priors import priors_of
from edit3dgs_ns.tracking.surface_points import EYES, JAW, NECK, NUM_POSE, ROTATION, TRANSLATION

FRAMES, SIZE, FOCAL = 16, 256.0, 400.0
HEAD = load_assets()


@pytest.fixture(scope="module")
def fit() -> HeadFit:
    table = load_landmark_table(HEAD).thinned()
    # What the detector does to landmarks is another test's: here they lie where the head has them.
    nothing = {name: 0 * getattr(table, name) for name in ("offsets", "view_offsets", "modes")}
    plain = dataclasses.replace(table, **nothing)
    return HeadFit.of(HEAD, plain, priors_of(HEAD, SIZE, 30.0, FOCAL))


def performance() -> TrackingState:
    """A head that turns, speaks, blinks and looks around."""
    time = torch.linspace(0, 1, FRAMES).double()
    frames = torch.zeros(FRAMES, NUM_POSE + HEAD.exprdirs.shape[2]).double()
    frames[:, TRANSLATION.start + 2] = -0.7
    frames[:, NECK.start + 1] = 0.35 * torch.sin(6 * time)
    frames[:, NECK.start] = 0.15 * torch.cos(5 * time)
    frames[:, JAW.start] = 0.15 * (1 - torch.cos(9 * time))
    frames[:, EYES.start + 1] = frames[:, EYES.start + 4] = 0.2 * torch.sin(4 * time)
    frames[:, NUM_POSE + HEAD.expression_index("mouthSmileLeft")] = 0.5 * time
    for side in ("Left", "Right"):
        frames[7:9, NUM_POSE + HEAD.expression_index(f"eyeBlink{side}")] = 1.0
    shape = torch.zeros(HEAD.shapedirs.shape[2]).double()
    shape[HEAD.shape_names.index("nose_width")] = 0.6
    return TrackingState(frames, shape, FOCAL)


def seen(fit: HeadFit, truth: TrackingState, noise: float = 0.0) -> Observations:
    center = torch.tensor([SIZE / 2, SIZE / 2]).double()
    pixels = project_points(fit.points.positions(truth.shape, truth.frames), truth.focal, center)
    pixels = pixels + noise * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(3)).double()
    return Observations(pixels, torch.ones(FRAMES, dtype=torch.bool), center)


def head_turn(frames: torch.Tensor) -> Rotation:
    return Rotation.from_rotvec(frames[:, ROTATION].numpy()) * Rotation.from_rotvec(frames[:, NECK].numpy())


def test_a_performance_is_recovered_from_noisy_landmarks(fit: HeadFit) -> None:
    truth = performance()
    observed = seen(fit, truth, noise=0.3)
    found = fit.fit(observed)
    turned = (head_turn(truth.frames).inv() * head_turn(found.frames)).magnitude()
    assert np.degrees(turned).mean() < 1.0
    error = found.frames - truth.frames
    assert np.degrees(error[:, JAW.start].abs().mean()) < 1.0
    assert np.degrees(error[:, [EYES.start + 1, EYES.start + 4]].abs().mean()) < 2.0
    blink = found.frames[:, NUM_POSE + HEAD.expression_index("eyeBlinkLeft")]
    assert blink[7:9].min() > 0.7 and blink[:5].abs().max() < 0.25, "smoothness does not flatten a blink"
    smile = found.frames[:, NUM_POSE + HEAD.expression_index("mouthSmileLeft")]
    assert np.corrcoef(smile, np.linspace(0, 1, FRAMES))[0, 1] > 0.95
    assert fit.reprojection(observed, found).mean() < 0.6  # pixels, at a noise of 0.3 in each direction


def test_every_step_is_downhill_at_the_end(fit: HeadFit) -> None:
    costs = fit.fit(seen(fit, performance(), noise=0.3)).costs
    assert costs[-1] < 0.2 * costs[0]
    assert abs(costs[-1] - costs[-2]) < 0.01 * costs[-1], "it has converged"


def test_landmarks_far_off_are_distrusted(fit: HeadFit) -> None:
    """A hand before the mouth: a tenth of the landmarks 40 pixels away."""
    truth = performance()
    observed = seen(fit, truth, noise=0.3)
    observed.pixels[:, ::10] += 40.0
    turned = (head_turn(truth.frames).inv() * head_turn(fit.fit(observed).frames)).magnitude()
    assert np.degrees(turned).mean() < 2.0


def test_frames_without_a_face_take_nothing_from_their_numbers(fit: HeadFit) -> None:
    observed = seen(fit, performance(), noise=0.3)
    found = observed.found.clone()
    found[4] = False
    results = []
    for garbage in (0.0, 500.0):
        pixels = observed.pixels.clone()
        pixels[4] = garbage
        results.append(fit.fit(dataclasses.replace(observed, pixels=pixels, found=found)).frames)
    torch.testing.assert_close(*results)


def test_too_few_faces_are_refused(fit: HeadFit) -> None:
    observed = seen(fit, performance())
    few = torch.arange(FRAMES) < 3
    with pytest.raises(UserError, match="A face was found in 3 of 16 frames; at least 10 are needed"):
        fit.fit(dataclasses.replace(observed, found=few))


def test_the_gradient_of_the_priors_is_that_of_their_value() -> None:
    priors = priors_of(HEAD, SIZE, 30.0)
    generator = torch.Generator().manual_seed(4)
    frames = 0.7 * torch.randn(2, NUM_POSE + HEAD.exprdirs.shape[2], generator=generator).double()
    _, gradient, _ = priors.of_frames(frames)
    step = 1e-6
    for column in (
        0,
        JAW.start,
        EYES.start,
        EYES.start + 4,
        NUM_POSE + 3,
        NUM_POSE + HEAD.expression_index("eyeLookDownLeft"),
    ):
        moved = [frames.clone(), frames.clone()]
        moved[0][0, column] -= step
        moved[1][0, column] += step
        slope = (priors.of_frames(moved[1])[2] - priors.of_frames(moved[0])[2]) / (2 * step)
        assert slope == pytest.approx(2 * float(gradient[0, column]), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("distance", [0.45, 0.9, 2.0])
def test_an_unknown_focal_length_follows_from_the_usual_distance(distance: float) -> None:
    """A crop of 256 pixels says nothing about the field of view; the head's size in it does, with the distance."""
    focal = 450 * distance / 0.7
    priors = priors_of(HEAD, SIZE, 30.0)
    expected = [
        priors.at_distance(any_focal, distance * any_focal / focal) for any_focal in (focal, 3 * focal)
    ]
    assert expected[0].log_focal == pytest.approx(expected[1].log_focal), "only their ratio is seen"
    found = float(np.exp(expected[0].log_focal))
    assert abs(np.log(found / focal)) < 0.9, "half to double, about"
    if distance == 0.9:
        assert found == pytest.approx(focal, rel=0.15)
    known = priors_of(HEAD, SIZE, 30.0, 321.0)
    assert known.at_distance(focal, distance) == known
