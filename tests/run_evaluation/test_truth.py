"""`edit3dgs evaluate` on a synthetic capture: what is known there for certain, true edits and expressions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edit3dgs_ns.evaluation.expression_fit import FitOptions, fit_expression
from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.rendering.views import (
    EvaluationView,
    Setting,
    front_camera,
    novel_view,
    self_reenactment,
    shared_frames,
)
from edit3dgs_ns.run_evaluation import expression
from edit3dgs_ns.run_evaluation.expression import ExpressionFits
from edit3dgs_ns.run_evaluation.job import evaluate
from edit3dgs_ns.run_evaluation.options import EvaluationOptions
from edit3dgs_ns.run_evaluation.runs import driven_by
from edit3dgs_ns.run_evaluation.truth import TrueEdit, compare_with_truth, find_true_edit
from edit3dgs_ns.runs.trained_run import Picture, TrainedRun, moved_camera
from edit3dgs_ns.synthetic.edits import EDITS
from edit3dgs_ns.synthetic.replay import render_edited
from edit3dgs_ns.synthetic.true_edits import TRUE_EDITS
from edit3dgs_ns.synthetic.writer import write_capture
from tests.known_edits import edited_run, known_avatar
from tests.tiny_clip import save_tiny_clip

QUICK = FitOptions(steps=4)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The combined set of a capture of `edit3dgs capture`."""
    return write_capture(
        tmp_path_factory.mktemp("synthetic") / "capture",
        seed=3,
        width=64,
        height=64,
        cameras=3,
        frames=2,
        samples=1,
        workers=1,
    )


@pytest.fixture(scope="module")
def config(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of an avatar of that capture."""
    return known_avatar(capture, tmp_path_factory.mktemp("avatar"))


@pytest.fixture(scope="module")
def run(config: Path) -> TrainedRun:
    return TrainedRun.of_capture(config)


@pytest.fixture(scope="module")
def setting(run: TrainedRun) -> Setting:
    return novel_view(run, shared_frames([run], ["run"]))


def other_images(images: dict[float, np.ndarray]) -> Any:
    """Something that renders given images, by their normalised time."""
    return SimpleNamespace(
        render=lambda camera: Picture(
            images[float(camera.times)], np.ones(images[float(camera.times)].shape[:2])
        )
    )


def shots_of(setting: Setting) -> list[EvaluationView]:
    return [shot for path in setting.paths for shot in path]


# -- the true edit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [*EDITS, "hair_green", "shirt_grey", "knitted_hat", "smile"])
def test_the_true_edit_is_found_by_the_prompt(run: TrainedRun, key: str) -> None:
    for wording in TRUE_EDITS[key].instructions:
        assert find_true_edit(run, f"  {wording.upper()}. ", None) == TrueEdit(key)
    assert find_true_edit(run, TRUE_EDITS[key].instructions[0], "none") is None


def test_a_prompt_without_a_true_edit_and_an_option_for_it(run: TrainedRun) -> None:
    assert find_true_edit(run, "Give him a hat", None) is None
    assert find_true_edit(run, "Give him a hat", "older") == TrueEdit("older")
    with pytest.raises(ValueError, match="--true-edit hat: expected none or one of older"):
        find_true_edit(run, "Give him a hat", "hat")


def test_other_captures_have_no_true_edits(tiny_capture, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = TrainedRun.of_capture(known_avatar(tiny_capture.union, tmp_path))
    assert find_true_edit(other, EDITS["older"].instructions[0], None) is None
    with pytest.raises(ValueError, match=r"capture\.json"):
        find_true_edit(other, "", "older")


def test_edited_renders_are_compared_with_true_edits(run: TrainedRun, setting: Setting) -> None:
    """A perfect edit, and one that does nothing; PSNR against its definition."""
    shots = shots_of(setting)
    truth = {float(shot.camera.times): render_edited(shot.image, "green_skin") for shot in shots}
    known = compare_with_truth(run, other_images(truth), setting, TrueEdit("green_skin"), None)
    assert known["truth_psnr"].value == np.inf and known["truth_ssim"].value == pytest.approx(1)
    nothing = compare_with_truth(run, run, setting, TrueEdit("green_skin"), None)
    errors = [np.mean((truth[float(s.camera.times)] - run.render(s.camera).rgb) ** 2) for s in shots]
    expected = np.mean(10 * np.log10(1 / np.array(errors)))
    assert nothing["truth_psnr"].value == nothing["truth_psnr"].beside == pytest.approx(expected, abs=1e-3)
    assert known["truth_psnr"].beside == pytest.approx(expected, abs=1e-3)


# -- expressions ------------------------------------------------------------------------------------------------------


def test_true_edits_stand_beside_expressions_where_there_are_any(
    config: Path, capture: Path, tmp_path: Path
) -> None:
    edit = edited_run(config, tmp_path / "edits", change=0.1, prompt=EDITS["older"].instructions[0])
    clip = save_tiny_clip(tmp_path / "clip")
    report, path = evaluate(
        EvaluationOptions(
            runs=(edit,),
            source_caption="a photo of a man",
            target_captions=("a photo of an old man",),
            clip=str(clip),
            motion=capture.parent / "003_SEN-01",
            output=tmp_path / "out",
            max_frames=2,
            expression_frames=1,
        )
    )
    settings = report.runs[0].settings
    for key in ("novel_view", "self_reenactment"):
        assert settings[key].figures["jaw_degrees"].beside_of == "true edit"
        assert settings[key].figures["truth_psnr"].beside is not None
    crossed = settings["cross_reenactment"].figures  # the capture has no images of another actor's motion
    assert crossed["jaw_degrees"].beside_of == "" and "truth_psnr" not in crossed
    text = path.read_text()
    assert "(true edit " in text and "(unedited " in text
    assert "(true_edit.png)" in text
    with Image.open(tmp_path / "out" / "true_edit.png") as grid:
        assert grid.height > grid.width / 6 * 2.5  # three rows of six frames, square, and headings


def remember_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits with the same inputs, bit for bit, give the same result. Repeated, a fit agrees with itself to about 1e-6 only: sums of
    PyTorch on the CPU do not always round alike."""
    known: dict[tuple[bytes, ...], FlamePose] = {}

    def fit(draw: Any, image: Any, pose: FlamePose, starts: Any, where: Any, options: Any) -> FlamePose:
        inputs = (image, where, *vars(pose).values(), *vars(starts[0]).values())
        key = tuple(tensor.numpy().tobytes() for tensor in inputs)
        if key not in known:
            known[key] = fit_expression(draw, image, pose, starts, where, options)
        return known[key]

    monkeypatch.setattr(expression, "fit_expression", fit)


def test_the_true_edits_error_is_that_of_a_perfect_edit(
    run: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an edit that is the true one, error and reference are the same fit to the same images."""
    remember_fits(monkeypatch)
    setting = self_reenactment(run, shared_frames([run], ["run"]))
    shots = shots_of(setting)
    truth = {
        float(shot.camera.times): render_edited(shot.image, "older").astype(np.float32) for shot in shots
    }
    perfect = other_images(truth)
    perfect.pipeline = run.pipeline
    fits = ExpressionFits(run, 1, QUICK)
    with_truth = fits.figures(perfect, setting, TrueEdit("older"))
    assert all(figure.value == figure.beside for figure in with_truth.values())
    without = fits.figures(perfect, setting)
    assert without["lips_mm"].value == with_truth["lips_mm"].value
    assert without["lips_mm"].beside != with_truth["lips_mm"].beside


def test_the_first_eye_is_the_left_one(run: TrainedRun) -> None:
    """What `_EYES` relies on: which half of a pose turns which eyeball."""
    head = run.pipeline.model.head
    pose = head.pose_at(0.0)
    turned = replace(pose, eyes_pose=pose.eyes_pose + torch.tensor([[0, 0.3, 0, 0, 0, 0]]))
    with torch.no_grad():
        moved = (head.vertices_of(turned) - head.vertices_of(pose)).norm(dim=1)
    regions = run.head.vertex_regions
    assert moved[torch.as_tensor(regions["eye_left"])].mean() > 1e-3
    assert moved[torch.as_tensor(regions["eye_right"])].max() < 1e-6


@pytest.mark.parametrize(
    ("actions", "azimuth", "seen"),
    [
        ({}, 0.0, (True, True)),
        ({"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}, 0.0, (False, False)),
        ({"eyeBlinkLeft": 1.0}, 0.0, (False, True)),
        ({}, 1.1, (False, True)),
        ({}, -1.1, (True, False)),
    ],
)
def test_gaze_is_read_from_eyes_that_show(
    run: TrainedRun, actions: dict[str, float], azimuth: float, seen: tuple[bool, bool]
) -> None:
    """Open, shut, winking, and turned away so far that the nose hides one eye."""
    expression = torch.zeros(1, len(run.head.expression_names or ()))
    for name, amount in actions.items():
        expression[0, run.head.expression_index(name)] = amount
    head = run.pipeline.model.head
    pose = replace(
        head.pose_at(0.0),
        expr=expression,
        eyes_pose=torch.zeros(1, 6),
        rotation=torch.tensor([[0.0, azimuth, 0.0]]),
    )
    camera = moved_camera(front_camera(run), time=0.0)
    for name in ("fx", "fy", "cx", "cy", "width", "height"):  # of 64 pixels an eye has two
        setattr(camera, name, 4 * getattr(camera, name))
    shot = EvaluationView(camera, 0, "x")
    fits = ExpressionFits(run, 1, QUICK)
    with driven_by([run], head.motion().with_pose(pose)):
        assert fits._eyes_seen(shot, pose) == seen
